from hypothesis import given
from hypothesis import strategies as st
from stamped import at, trained

from asyncrunner.subscribers import Eta
from asyncrunner_events import AfterVal, BeforeTrain, BeforeVal, MetricsReady


def hundred(seconds: float, iter: int) -> MetricsReady:
    return trained(seconds, iter, max_epochs=2, per_epoch=50)


def test_the_time_left_is_exact_when_every_iteration_takes_the_same():
    eta = Eta()
    eta.see(at(1000.0, BeforeTrain(iter=0)))
    for done in range(1, 101):
        eta.see(hundred(1000.0 + 2 * done, done - 1))
        assert eta.remaining_s == 2 * (100 - done)
        assert eta.iters_per_s == 0.5


def test_nothing_is_said_before_an_iteration_was_timed():
    eta = Eta()
    eta.see(hundred(1.0, 9))
    assert (eta.remaining_s, eta.iters_per_s) == (None, None)
    eta.see(hundred(11.0, 19))
    assert (eta.remaining_s, eta.iters_per_s) == (80.0, 1.0)


def test_the_time_of_validations_does_not_count():
    eta = Eta()
    eta.see(at(0.0, BeforeTrain(iter=0)))
    eta.see(at(0.0, BeforeVal()))
    eta.see(at(500.0, AfterVal()))
    eta.see(hundred(520.0, 9))
    assert (eta.remaining_s, eta.iters_per_s) == (180.0, 0.5)
    eta.see(at(520.0, BeforeVal(dataset="a")))
    eta.see(at(530.0, AfterVal(dataset="a")))
    eta.see(at(530.0, BeforeVal(dataset="b")))
    eta.see(at(9000.0, AfterVal(dataset="b")))
    eta.see(hundred(9020.0, 19))
    assert (eta.remaining_s, eta.iters_per_s) == (160.0, 0.5)


def test_metrics_that_land_while_a_validation_runs_do_not_count_its_time():
    eta = Eta()
    eta.see(at(0.0, BeforeTrain(iter=0)))
    eta.see(at(20.0, BeforeVal()))
    eta.see(hundred(29.0, 9))
    assert eta.remaining_s == 180.0
    eta.see(at(40.0, AfterVal()))
    eta.see(hundred(60.0, 19))
    assert eta.remaining_s == 160.0


def test_a_resumed_run_is_timed_from_where_it_resumed():
    eta = Eta()
    eta.see(at(0.0, BeforeTrain(iter=90)))
    eta.see(hundred(10.0, 94))
    assert eta.remaining_s == 10.0


def test_training_again_is_timed_anew():
    eta = Eta()
    eta.see(at(0.0, BeforeTrain(iter=0)))
    eta.see(hundred(1000.0, 9))
    eta.see(at(2000.0, BeforeTrain(iter=10)))
    assert eta.remaining_s is None
    eta.see(hundred(2010.0, 19))
    assert eta.remaining_s == 80.0


def test_the_length_of_an_epoch_stands_in_for_the_number_of_iterations():
    eta = Eta()
    eta.see(at(0.0, BeforeTrain(iter=0)))
    known = MetricsReady(stage="train", iter=9, max_epochs=2, num_batches=50)
    eta.see(at(10.0, known))
    assert eta.remaining_s == 90.0
    eta = Eta()
    eta.see(at(0.0, BeforeTrain(iter=0)))
    eta.see(at(10.0, MetricsReady(stage="train", iter=9, max_epochs=2)))
    assert (eta.remaining_s, eta.iters_per_s) == (None, 1.0)


def test_the_metrics_of_a_validation_say_nothing_about_training():
    eta = Eta()
    eta.see(at(0.0, BeforeTrain(iter=0)))
    eta.see(at(5.0, MetricsReady(stage="val", iter=50, max_iters=100)))
    assert (eta.remaining_s, eta.iters_per_s) == (None, None)


@given(
    st.lists(
        st.tuples(st.sampled_from(["iter", "before", "after"]), st.integers(0, 10**12)),
        max_size=30,
    ),
    st.integers(0, 200),
)
def test_the_time_left_is_never_negative(moves: list[tuple[str, int]], first: int):
    eta, now, done = Eta(), 0.0, first
    eta.see(at(now, BeforeTrain(iter=first)))
    for move, nanoseconds in moves:
        now += nanoseconds / 1e9
        if move == "iter":
            eta.see(hundred(now, done))
            done += 1
        else:
            eta.see(at(now, BeforeVal() if move == "before" else AfterVal()))
        assert eta.remaining_s is None or eta.remaining_s >= 0
        assert eta.iters_per_s is None or eta.iters_per_s > 0
