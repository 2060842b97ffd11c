"""What `bench_engine.py` compares with: what a careful user of transformers and peft writes. No metanlp runs here."""

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
LONGEST = 128  # tokens of a text


@dataclass(frozen=True)
class PlainEpisode:
    """Tokenised once, before the loop begins."""

    support: BatchEncoding
    support_labels: Tensor
    query: BatchEncoding
    query_labels: Tensor


class PlainMaml:
    """First-order MAML: one episode after the other on one model, the adapters' weights copied in and out, steps by
    torch.optim.SGD; mean pooling and a linear head; padding to the longest text of a batch, or always to `pad_to`."""

    def __init__(self, folder: str, rank: int, alpha: int, layers: Sequence[int], targets: Sequence[str]) -> None:
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets), layers_to_transform=list(layers))
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = get_peft_model(AutoModel.from_pretrained(folder), config).eval()
        self.adapters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def tokenised(self, texts: Texts, pad_to: int | None = None) -> BatchEncoding:
        columns = [list(column) for column in zip(*texts, strict=True)]
        padding = "max_length" if pad_to else "longest"
        return self.tokenizer(*columns, padding=padding, truncation=True, max_length=LONGEST, return_tensors="pt")

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
        """The mean first-order gradient of a meta-batch: that of the query loss at the adapted weights."""
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


class PlainClassifier:
    """A frozen encoder with mean pooling and a linear head, in fp32, as a loop over texts in order of length."""

    def __init__(self, folder: str, classes: int) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval()
        self.head = nn.Linear(self.model.config.hidden_size, classes)

    @torch.no_grad()
    def predict(self, texts: Sequence[str], batch_size: int) -> list[int]:
        ids = self.tokenizer(list(texts), truncation=True, max_length=LONGEST)["input_ids"]
        order = sorted(range(len(ids)), key=lambda n: len(ids[n]))
        found = torch.zeros(len(ids), dtype=torch.long)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            inputs = self.tokenizer.pad({"input_ids": [ids[n] for n in chosen]}, return_tensors="pt")
            hidden, mask = self.model(**inputs).last_hidden_state, inputs["attention_mask"].unsqueeze(-1).float()
            found[chosen] = self.head((hidden * mask).sum(1) / mask.sum(1)).argmax(1)
        return found.tolist()


def pipeline_of(folder: str, classes: int):
    """transformers' own; its head is fresh, which costs no less time than a trained one."""
    from transformers import AutoModelForSequenceClassification, pipeline

    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=classes)
    return pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(folder))
