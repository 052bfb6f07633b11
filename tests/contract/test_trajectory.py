"""Looks during unlearning: they are told, they choose nothing, and a run taken up again tells the same."""

from __future__ import annotations

import pytest
from tests.attacks.worlds import REQUEST, knowing

from expunge import planning
from expunge.core.errors import InputError
from expunge.core.method import InMemory
from expunge.methods import registry

SETTINGS = {"steps": 50, "lr": 1e-3, "batch_size": 6}


def run(journal=None, name="npo", **more):
    method = registry.make(name, {**SETTINGS, **more})
    return planning.plan(knowing(), REQUEST, method, key=b"k", journal=journal).run()


@pytest.mark.parametrize("name", ["npo", "npo+su+dual", "ga"])
def test_looks_are_told_and_choose_nothing(name):
    more = {"retain_steps": 1} if "dual" in name else {}
    plain, watched = run(name=name, **more), run(name=name, look_every=10, **more)
    assert plain.releases[0].artifact.digest == watched.releases[0].artifact.digest
    seen = watched.details["trajectory"]
    assert [look["step"] for look in seen[:6]] == [0, 10, 20, 30, 40, 50]
    assert seen[0]["forget"] > 0.8 and seen[-1]["forget"] < seen[0]["forget"] / 2
    assert "trajectory" not in plain.details and watched.details["guard"] == []
    if name == "npo":
        assert seen[-1]["retain"] > seen[-1]["forget"]


def test_a_run_taken_up_again_tells_the_same():
    class Dies(InMemory):
        def once(self, name, compute):
            if name not in self.stages and self.stages:
                raise KeyboardInterrupt
            return super().once(name, compute)

    journal = Dies()
    with pytest.raises(KeyboardInterrupt):
        run(journal, look_every=10)
    again = InMemory()
    again.stages.update(journal.stages)
    assert len(again.stages) == 1
    assert run(again, look_every=10).details["trajectory"] == run(look_every=10).details["trajectory"]


def test_never_is_no_number_of_steps():
    with pytest.raises(InputError, match="at least 1"):
        run(look_every=0)
