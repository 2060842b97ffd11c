"""Deep knowledge tracing: a recurrent network reads the answers so far and tells the next on every skill."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils.rnn import pad_sequence

from metanlp.episodes.traces import History
from metanlp.evaluation.external.regressions import Given, Predict
from metanlp.evaluation.mastery import loss

HIDDEN, EPOCHS, TOGETHER, RATE, PATIENCE = 64, 40, 32, 3e-3, 4


class Tracer(nn.Module):
    """Piech et al. 2015, arXiv 1506.05908, with a gated recurrent unit: a number for each pair of skill and answer goes
    in, log-odds of all S skills come out."""

    def __init__(self, skills: int) -> None:
        super().__init__()
        self.read = nn.Embedding(2 * skills + 1, HIDDEN)  # the last is the beginning
        self.unit, self.say = nn.GRU(HIDDEN, HIDDEN, batch_first=True), nn.Linear(HIDDEN, skills)
        self.skills = skills

    def forward(self, skills: Tensor, right: Tensor) -> Tensor:
        """Log-odds of each answer, from those before it: (B, n), (B, n) -> (B, n)."""
        before = (skills + self.skills * right)[:, :-1]
        begun = torch.cat([torch.full_like(skills[:, :1], 2 * self.skills), before], 1)
        return self.say(self.unit(self.read(begun))[0]).gather(2, skills[..., None])[..., 0]


def dkt(given: Given, tick: Callable[[], object] = lambda: None) -> Predict:
    """Adam, until the loss on the choosing students has not fallen for some epochs; the best is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(given.seed)
        model = Tracer(given.skills)
    rng, optimizer = np.random.default_rng(given.seed), torch.optim.Adam(model.parameters(), RATE)
    best, kept, waited = np.inf, model.state_dict(), 0
    for _ in range(EPOCHS):
        order = rng.permutation(len(given.teach))
        for at in range(0, len(order), TOGETHER):
            skills, right, there = padded([given.teach[n] for n in order[at : at + TOGETHER]])
            each = binary_cross_entropy_with_logits(model(skills, right), right.float(), weight=there, reduction="sum")
            optimizer.zero_grad()
            (each / there.sum()).backward()
            optimizer.step()
        found = loss(given.choose, [told(model, history, given.most) for history in given.choose])
        waited = 0 if found < best else waited + 1
        if found < best:
            best, kept = found, {key: value.clone() for key, value in model.state_dict().items()}
        tick()
        if waited >= PATIENCE:
            break
    model.load_state_dict(kept)
    return lambda history: told(model, history, given.most)


def told(model: Tracer, history: History, most: int) -> np.ndarray:
    """The probability of each of the first answers: (n,)."""
    skills, right, _ = padded([history])
    with torch.no_grad():
        return model(skills[:, :most], right[:, :most]).sigmoid()[0].double().numpy()


def padded(histories: Sequence[History]) -> tuple[Tensor, Tensor, Tensor]:
    """Skills, answers, and 1 where there is an answer: (B, n) each."""
    students = [history.student for history in histories]
    skills = [torch.from_numpy(student.skills.astype(np.int64)) for student in students]
    right = [torch.from_numpy(student.right.astype(np.int64)) for student in students]
    there = [torch.ones(len(student)) for student in students]
    found = [pad_sequence(each, batch_first=True) for each in (skills, right, there)]
    return found[0], found[1], found[2]
