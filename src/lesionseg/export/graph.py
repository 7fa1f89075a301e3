"""A whole model as one ONNX graph, from the decoded photograph to its mask: nothing is left to re-implement.

torch's older, tracing exporter is used: it needs no package but onnx, and takes 2 s where the newer one takes 17
(docs/export.md). torch is pinned, so it cannot disappear unnoticed.
"""

import contextlib
import io
import json
import warnings
from importlib.metadata import version

import onnx
import torch
from torch import Tensor, nn

from lesionseg.common.errors import InputError
from lesionseg.export.cleaning import clean
from lesionseg.export.enlarging import enlarge
from lesionseg.export.shrinking import shrink_photograph
from lesionseg.inference.prediction import average_views, quantised
from lesionseg.inference.refine import marginals
from lesionseg.inference.settings import Settings
from lesionseg.predict.model import Model

OPSET = 18
LARGEST = 1_900_000_000  # bytes of weights; a protobuf message ends at 2 GiB
INPUT, MASK, PROBABILITIES = "photograph", "mask", "probabilities"
EXPLAINED = """\
Input photograph: uint8 (height, width, 3), RGB, 0 to 255, the whole picture, upright, of any size.
Output mask: uint8 (height, width), 1 for lesion, 0 for the rest.
Output probabilities, if exported: uint8 (height, width), 255 stands for 1; the mask is probabilities >= level.
Not a medical device."""


class WholeModel(nn.Module):
    """From a photograph, uint8 (height, width, 3), to (mask,) or (mask, probabilities), uint8 (height, width)."""

    def __init__(self, network: nn.Module, size: int, settings: Settings, probabilities: bool):
        super().__init__()
        self.network, self.size, self.settings, self.probabilities = network, size, settings, probabilities

    def forward(self, photograph: Tensor) -> tuple[Tensor, ...]:
        settings, level = self.settings, self.settings.level
        small = shrink_photograph(photograph, self.size)[None].float() / 255
        _, averaged = average_views(self.network, small, settings.test_time_augmentation)
        probabilities = quantised(averaged[0])
        if settings.refinement == "crf":
            probabilities = marginals(probabilities.float() / 255, small)
        if settings.cleaning:
            values = probabilities.float()
            mask = clean((values >= level).float()[None, None], settings.cleaning)[0, 0]
            values = torch.where(mask > 0, values.clamp(min=level), values.clamp(max=level - 1))
            probabilities = values.to(torch.uint8)
        height, width = photograph.shape[0], photograph.shape[1]
        native = enlarge(probabilities, height, width)
        mask = (native.int() >= level).to(torch.uint8)
        return (mask, native) if self.probabilities else (mask,)


def build_graph(model: Model, probabilities: bool = False) -> onnx.ModelProto:
    """The graph of `model` with its settings, described in its metadata and checked by onnx.

    Same model, same bytes. See EXPLAINED for inputs and outputs. Raises InputError if ONNX cannot express the model.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.network.state_dict().values())
    if size > LARGEST:
        raise InputError(
            f"{model.path}: found {size / 1e9:.1f} GB of weights, expected at most {LARGEST / 1e9} for an ONNX file; "
            "export a member"
        )
    names = [MASK, PROBABILITIES] if probabilities else [MASK]
    whole = WholeModel(model.network.cpu().float(), model.image_size, model.settings, probabilities).eval()
    example = torch.zeros(model.image_size + 8, model.image_size + 12, 3, dtype=torch.uint8)
    sides = {0: "height", 1: "width"}
    content = io.BytesIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.inference_mode():
            warnings.simplefilter("ignore")  # about tracing, and about the exporter's age
            torch.onnx.export(
                whole,
                (example,),
                content,  # type: ignore[arg-type]  # a file serves as well
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=names,
                dynamic_axes=dict.fromkeys([INPUT, *names], sides),
            )
    except torch.onnx.errors.OnnxExporterError as error:  # a network of your own with an operation that ONNX lacks
        raise InputError(f"{model.path}: cannot be written as ONNX: {str(error).splitlines()[0]}") from None
    graph = onnx.load_from_string(content.getvalue())
    _describe(graph, model)
    onnx.checker.check_model(graph, full_check=True)
    return graph


def _describe(graph: onnx.ModelProto, model: Model) -> None:
    """Describe the model inside the file."""
    graph.producer_name, graph.producer_version = "lesionseg", version("lesionseg")
    graph.doc_string = EXPLAINED
    for node in graph.graph.node:
        node.doc_string = ""  # would hold lines of the traced code, with paths of this machine
        del node.metadata_props[:]
    settings = model.settings.as_dict()
    said = {
        "model_sha256": model.sha256,
        "network": type(model.network).__name__,
        "image_size": str(model.image_size),
        "settings": json.dumps(settings),
        "threshold": str(model.settings.threshold),
        "level": str(model.settings.level),
        "licence": "MIT",
        "intended_use": "research; not a medical device",
    }
    onnx.helper.set_model_props(graph, said)
