"""Which models other replicas have."""

from __future__ import annotations

from server.cluster.announcements import Served
from server.cluster.elsewhere import Elsewhere
from tests.api.fakes import FakePool


def test_any_model_may_be_elsewhere_until_the_front_has_spoken() -> None:
    elsewhere = Elsewhere(FakePool())
    (good, *_) = FakePool().models()
    assert elsewhere("other")
    assert not elsewhere(good.id)
    elsewhere.hear(Served(models=["One.B"]))
    assert elsewhere("one-b")
    assert not elsewhere("other")


def test_a_name_that_fits_several_models_of_this_replica_is_not_waited_for() -> None:
    pool = FakePool()
    own = [name for entry in pool.models() for name in (entry.id, *entry.aliases)]
    elsewhere = Elsewhere(pool)
    elsewhere.hear(Served(models=[*own, "one"]))
    # The fake pool compares names to the letter, and so knows none that is written otherwise.
    assert not elsewhere(own[0].upper() + ":latest")
    assert elsewhere("ONE:latest")
