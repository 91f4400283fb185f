// Follows a run as a browser would: fetch, a cookie, a reader that resumes. Node has no EventSource.
const [address, wanted] = process.argv.slice(2);
const entered = await fetch(address);
if (!entered.ok) throw new Error(`${entered.status}`);
const cookie = entered.headers.get("set-cookie").split(";")[0];
const url = new URL("/v1/runs/latest/events", address);
const seen = [];
let last = "";

while (seen.length < Number(wanted)) {
  const headers = last ? { cookie, "last-event-id": last } : { cookie };
  const stream = await fetch(url, { headers });
  let text = "";
  for await (const part of stream.body.pipeThrough(new TextDecoderStream())) {
    text += part;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s)));
      if (fields.id) last = fields.id;
      if (fields.data && !fields.event) seen.push(JSON.parse(fields.data).id);
    }
    if (seen.length % 7 === 0 || seen.length >= Number(wanted)) break; // as if the connection were cut
  }
}
console.log(JSON.stringify(seen));
process.exit(0);
