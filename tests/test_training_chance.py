import numpy as np
import pytest
import torch

from opendelg.scrambling import scrambled
from opendelg.training.chance import LIGHT, VIEW, Chance, seeds_of
from opendelg.training.order import PhotoNumbers, Visit, Visits

CPU = torch.device("cpu")


def test_mixing_is_that_of_splitmix():
    """The first number of the published generator, started at 0."""
    assert scrambled(np.zeros(1, np.uint64)).tolist() == [0xE220A8397B1DCDAF]


def test_seeds_depend_on_run_purpose_and_number():
    numbers = np.arange(1000)
    seeds = [seeds_of(0, VIEW, numbers), seeds_of(1, VIEW, numbers), seeds_of(0, LIGHT, numbers)]
    assert len(np.unique(np.concatenate(seeds))) == 3000


def test_numbers_of_a_view_do_not_depend_on_its_batch():
    together, alone = (Chance(seeds_of(0, LIGHT, np.array(n)), CPU) for n in ([4, 5, 6], [5]))
    assert torch.equal(together.uniform(3)[1:2], alone.uniform(3))
    assert torch.equal(together.noise(3, 8, 6)[1:2], alone.noise(3, 8, 6))


def test_each_call_draws_evenly_and_anew():
    chance = Chance(seeds_of(0, LIGHT, np.arange(5000)), CPU)
    first, second = chance.uniform(2), chance.uniform(2)
    assert first.min() >= -1
    assert first.max() < 1
    assert first.mean(dim=0).abs().max() < 0.05
    assert (first**2).mean(dim=0).tolist() == pytest.approx([1 / 3, 1 / 3], abs=0.02)
    correlations = np.corrcoef(torch.cat([first, second], dim=1).numpy().T)
    assert np.abs(correlations - np.eye(4)).max() < 0.05


def test_noise_is_normal_and_differs_between_views_and_calls():
    chance = Chance(seeds_of(0, LIGHT, np.arange(300)), CPU)
    noise, again = chance.noise(3, 8, 12), chance.noise(3, 8, 12)
    assert noise.shape == (300, 3, 8, 12)
    assert noise.mean().item() == pytest.approx(0, abs=0.05)
    assert noise.std().item() == pytest.approx(1, abs=0.05)
    assert len(np.unique(noise.numpy(), axis=0)) > 250  # of 16 x 8 x 12 that there are
    assert not torch.equal(noise, again)
    correlations = np.corrcoef(noise[:50].flatten(1).numpy())
    assert np.abs(correlations - np.eye(50)).mean() < 0.08


def test_batches_by_number_are_those_of_single_views():
    labels = np.array([5, 3, 8, 1])
    batch = [Visit(2, 40), Visit(0, 41)]
    views, *numbers = PhotoNumbers(labels)[batch]
    assert views.shape == (2, 0)
    assert [part.tolist() for part in numbers] == [[8, 5], [2, 0], [40, 41]]
    assert {part.dtype for part in numbers} == {torch.int64}


def visits(**changes):
    settings = {"num_photos": 11, "batch_size": 4, "steps": 5} | changes
    return [[(v.position, v.number) for v in batch] for batch in Visits(**settings)]


def test_an_epoch_shows_each_photo_once_at_most_and_differs_from_the_next():
    batches = visits()
    positions = [position for batch in batches for position, _ in batch]
    assert [number for batch in batches for _, number in batch] == list(range(20))
    assert len(set(positions[:8])) == len(set(positions[8:16])) == 8
    assert positions[:8] != positions[8:16]


def test_a_late_start_continues_the_order():
    assert visits(first_step=3) == visits()[3:]


def test_processes_and_parts_share_each_batch():
    shares = [visits(process=i, num_processes=2, accumulate=2) for i in range(2)]
    joined = [a + b for a, b in zip(*shares, strict=True)]
    assert [x + y for x, y in zip(joined[::2], joined[1::2], strict=True)] == visits()


def test_another_seed_is_another_order():
    assert visits(seed=1) != visits(seed=2)
