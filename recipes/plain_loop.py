"""First-order MAML over LoRA as a careful user of peft writes it: what `bench_engine.py` compares with.

One episode after the other, on one model: the adapters' weights are copied in and out, torch.optim.SGD steps, sequences
are padded to the longest of their batch or to `pad_to`. No code of metanlp runs here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from transformers import AutoModel, AutoTokenizer, BatchEncoding

Texts = Sequence[tuple[str, ...]]
State = dict[str, Tensor]


@dataclass(frozen=True)
class PlainEpisode:
    """Tokenised once, before the loop begins."""

    support: BatchEncoding
    support_labels: Tensor
    query: BatchEncoding
    query_labels: Tensor


class PlainMaml:
    """An encoder with LoRA on query and value projections, mean pooling, and a linear head."""

    def __init__(self, model: str, rank: int, alpha: float, layers: Sequence[int], targets: Sequence[str]) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        config = LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=list(targets), layers_to_transform=list(layers), lora_dropout=0.0
        )
        self.model = get_peft_model(AutoModel.from_pretrained(model), config).eval()
        self.adapters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def episode(
        self, support: Texts, labels: Sequence[int], query: Texts, answers: Sequence[int], pad_to: int | None = None
    ) -> PlainEpisode:
        def tokenised(texts: Texts) -> BatchEncoding:
            padding = "max_length" if pad_to else "longest"
            columns = map(list, zip(*texts, strict=True))
            return self.tokenizer(
                *columns, padding=padding, truncation=True, max_length=pad_to or 128, return_tensors="pt"
            )

        return PlainEpisode(tokenised(support), torch.tensor(labels), tokenised(query), torch.tensor(answers))

    def features(self, inputs: BatchEncoding) -> Tensor:
        """Mean over tokens, to length one: (N, D)."""
        hidden = self.model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        return normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)

    def adapt(self, theta: State, head: nn.Linear, episode: PlainEpisode, steps: int, lr: float) -> None:
        """Copy θ into the model and take gradient steps on the support set."""
        with torch.no_grad():
            for name, parameter in self.adapters.items():
                parameter.copy_(theta[name])
        optimizer = torch.optim.SGD([*self.adapters.values(), *head.parameters()], lr=lr)
        for _ in range(steps):
            optimizer.zero_grad()
            cross_entropy(head(self.features(episode.support)), episode.support_labels).backward()
            optimizer.step()

    def meta_step(self, theta: State, head: State, episodes: Sequence[PlainEpisode], steps: int, lr: float) -> State:
        """The mean first-order gradient of a meta-batch, at the adapted weights."""
        total = {name: torch.zeros_like(value) for name, value in (theta | head).items()}
        for episode in episodes:
            linear = nn.Linear(head["weight"].shape[1], head["weight"].shape[0])
            linear.load_state_dict(head)
            self.adapt(theta, linear, episode, steps, lr)
            moved = [*self.adapters.values(), *linear.parameters()]
            for parameter in moved:
                parameter.grad = None
            cross_entropy(linear(self.features(episode.query)), episode.query_labels).backward()
            for value, parameter in zip(total.values(), moved, strict=True):
                assert parameter.grad is not None
                value += parameter.grad / len(episodes)
        return total
