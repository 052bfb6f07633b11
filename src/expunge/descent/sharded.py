"""Weights cut into shares: every process keeps and moves a part of each (FSDP), and has a block whole only while it runs.

Each block of the model is gathered for its forward and backward pass and let go again (``torch``'s ``fully_shard``); gradients
come back as the parts that a process keeps, already added up. So an optimizer here is an ordinary one over ordinary
tensors, the parts, and only the norm of the whole gradient and what is stored ask the other processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from expunge.core.errors import ExtraMissingError, InputError
from expunge.descent.processes import Accelerated, norm_of
from expunge.tasks.language import decoder_layers


class Sharded(Accelerated):
    """The processes of ``accelerate launch`` under an FSDP configuration, version 2.

    Followed are the configuration's ``fsdp_offload_params`` and its mixed precision. Blocks are the model's own layers, and are
    let go after each pass. A model is whole on its device while it is loaded, and in main memory when the run is over.

    Raises:
        InputError: for FSDP's version 1, or settings that would need what is not done here.
    """

    def __init__(self) -> None:
        self.plugin = _settings()
        super().__init__()
        self.shares = self.count
        self.part = f"{self.rank}/"
        self.mesh = init_device_mesh(str(self.device).partition(":")[0], (self.count,))

    def spread(self, model: nn.Module) -> None:
        """Every layer, then what is left around them."""
        how = {"mesh": self.mesh, "reshard_after_forward": True}
        if self.plugin.mixed_precision_policy is not None:
            how["mp_policy"] = self.plugin.mixed_precision_policy
        if self.plugin.cpu_offload is not None:
            how["offload_policy"] = self.plugin.cpu_offload
        for module in (*decoder_layers(model), model):
            fully_shard(module, **how)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)  # a sum: losses divide by the rows of all processes
                module.set_force_sum_reduction_for_comms(True)  # which gloo would otherwise be asked to scale

    def gather(self, model: nn.Module) -> None:
        """Whole weights in main memory, one after another."""
        whole: dict[nn.Parameter, nn.Parameter] = {}  # tied weights stay tied
        for module in model.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                if weight not in whole:
                    tensor = weight.full_tensor() if isinstance(weight, DTensor) else weight
                    whole[weight] = nn.Parameter(tensor.detach().cpu(), requires_grad=weight.requires_grad)
                setattr(module, name, whole[weight])

    def own(self, weight: Tensor) -> Tensor:
        """The part that this process keeps."""
        own: Any = weight.detach()  # a DTensor is a Tensor to type checkers
        return own.to_local() if isinstance(weight, DTensor) else weight

    def gradients(self, loss: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
        """Through ``backward``, in which parts are sent to whom they belong."""
        loss.backward()
        found = []
        for weight in weights:
            part = torch.zeros_like(self.own(weight)) if weight.grad is None else self.own(weight.grad)
            found.append(part)
            weight.grad = None
        return found

    def norm(self, gradients: Sequence[Tensor]) -> float:
        """From the norms of all parts."""
        return self.total(norm_of(gradients).double() ** 2) ** 0.5

    def kept(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Everybody's parts, by the number of the process."""
        from accelerate.utils import gather_object

        found = {}
        for name, tensor in tensors.items():
            parts = gather_object([tensor])
            if self.rank == 0:
                found.update({f"{rank}/{name}": part for rank, part in enumerate(parts)})
        return found


def _settings() -> Any:
    """The configuration's, as ``accelerate`` reads them."""
    try:
        from accelerate import FullyShardedDataParallelPlugin
    except ImportError:
        raise ExtraMissingError("llm", "accelerate") from None

    plugin = FullyShardedDataParallelPlugin()
    if plugin.fsdp_version != 2:
        raise InputError(
            f"Expected fsdp_version: 2 in accelerate's configuration; got {plugin.fsdp_version}. Set it (accelerate config)."
        )
    if plugin.reshard_after_forward is False or plugin.activation_checkpointing:
        raise InputError(
            "Expected fsdp_reshard_after_forward: true and fsdp_activation_checkpointing: false: blocks are always let go, "
            "and whether activations are computed again is the model's own setting (checkpointing)."
        )
    return plugin
