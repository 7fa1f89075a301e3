"""A network and all that changes with it from step to step."""

import torch
from torch import Tensor, nn

from lesionseg.train.distributed import synchronise_batch_norm, synchronise_gradients
from lesionseg.train.recipe import Machine, Recipe
from lesionseg.train.schedule import learning_rate_factor
from lesionseg.train.weight_average import weight_average


class Learner:
    """Weights, optimiser, gradient scaler and average of the weights: what a step changes and a checkpoint holds.

    `model` is changed. `network` is what a training step calls, `validated` what validation calls, and `saved` holds
    the weights that are the result.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, machine: Machine, steps: int):
        """`steps`: of an epoch."""
        device = machine.device
        # two overloads that torch's types leave out
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = synchronise_batch_norm(model, device)
        compiled: nn.Module = torch.compile(self.model) if recipe.compile else self.model  # type: ignore[assignment]
        self.network = synchronise_gradients(compiled, device)
        self.optimiser = _adam(self.model, recipe)
        # an eighth of torch's: there the gradients of small first weights overflow, and the first steps are skipped
        self.scaler = torch.amp.GradScaler(device.type, init_scale=2**13, enabled=machine.dtype == torch.float16)
        self.average = None if recipe.ema_decay is None else weight_average(self.model, recipe.ema_decay)
        self.saved = self.average.module if self.average else self.model
        self.validated = self.saved if self.average else compiled
        self._recipe = recipe
        self._factor = learning_rate_factor(recipe.schedule, recipe.epochs * steps, recipe.warmup_epochs * steps)

    @property
    def learning_rate(self) -> float:
        return self.optimiser.param_groups[0]["lr"]

    def set_learning_rate(self, step: int) -> None:
        """Take the learning rate of the run's optimiser step `step`, from 0."""
        for group in self.optimiser.param_groups:
            group["lr"] = self._recipe.learning_rate * self._factor(step)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss` to that of the step."""
        self.scaler.scale(loss).backward()

    def step(self) -> None:
        """Change the weights by the gradient gathered since the last call."""
        if self._recipe.gradient_clip is not None:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.model.parameters(), self._recipe.gradient_clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad()
        if self.average:
            self.average.update_parameters(self.model)

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights to save, on the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.saved.state_dict().items()}

    def state_dict(self) -> dict:
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict:
        parts = {"model": self.model, "optimiser": self.optimiser, "scaler": self.scaler}
        return parts | ({"average": self.average} if self.average else {})


def _adam(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay; without weight decay it is plain Adam (Kingma and Ba 2015, arXiv 1412.6980)."""
    parameters = list(model.parameters())
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
