def test_x(real):
    import json
    for k,v in real.items():
        print(k, v.get("failed") or ("same" if v.get("ours")==v.get("theirs") and "ours" in v else "DIFF"))
    json.dump(real, open("/tmp/real.json","w"))
