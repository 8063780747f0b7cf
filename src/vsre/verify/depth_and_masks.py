"""What boxes do not show: the depth of every pixel (Depth Anything), and the outline of the thing in a box (SAM)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsre.errors import VsreError
from vsre.relations.photo_measures import DepthMap
from vsre.triplets import Box
from vsre.verify.config import Depth, Masks
from vsre.verify.loading import Looker, to_model
from vsre.verify.sight import Picture

_GROWS = {"relative": "towards", "metric": "away"}
"""`depth_estimation_type` in Depth Anything's configuration -> which way its values grow."""


class DepthEstimator(Looker[Depth]):
    """A depth map for each picture, at the picture's own size."""

    auto = "AutoModelForDepthEstimation"
    processor = "AutoImageProcessor"
    what = "a depth estimator"

    @property
    def grows(self) -> str:
        """Whether values grow "away" from the viewer or "towards"; raises VsreError if that is unknown."""
        if self.spec.grows != "auto":
            return self.spec.grows
        kind = getattr(self.model.config, "depth_estimation_type", None)
        if kind not in _GROWS:
            raise VsreError(
                f"{self.spec.model}: its configuration does not say whether its depths grow with distance. Set "
                "`grows: away` (metres) or `grows: towards` (disparity)."
            )
        return _GROWS[kind]

    def look(self, pictures: Sequence[Picture]) -> list[DepthMap | None]:
        """One depth map per picture; None if the model cannot take the picture (too narrow for its processor) or gives
        values that are not finite."""
        _, processor = self.model.load()
        groups: defaultdict[tuple[int, ...], list[tuple[int, Any]]] = defaultdict(list)
        for index, picture in enumerate(pictures):
            try:
                values = processor(images=[picture.shown], return_tensors="pt")["pixel_values"]
            except ValueError:  # a side is scaled down to zero pixels
                continue
            groups[tuple(values.shape)].append((index, values))
        found: list[DepthMap | None] = [None] * len(pictures)
        for members in groups.values():
            sizes = [pictures[index].shown.size for index, _ in members]
            items = [(values, size) for (_, values), size in zip(members, sizes, strict=True)]
            for (index, _), depth in zip(members, self.machine.in_batches(items, self._batch), strict=True):
                found[index] = depth
        return found

    def _batch(self, batch: Sequence[tuple[Any, tuple[int, int]]]) -> list[DepthMap | None]:
        import torch

        model, _ = self.model.load()
        pixels = torch.cat([values for values, _ in batch]).to(model.device, model.dtype)
        with torch.inference_mode():
            predicted = model(pixel_values=pixels).predicted_depth.float()  # (n, h, w)
        found: list[DepthMap | None] = []
        for depth, (_, (width, height)) in zip(predicted, batch, strict=True):
            # Not the processor's own resizing, which drops sides of one pixel.
            resized = torch.nn.functional.interpolate(depth[None, None], size=(height, width), mode="bilinear")
            values = resized[0, 0].cpu().numpy()
            clear = bool(np.isfinite(values).all())
            found.append(DepthMap(values, inverse=self.grows == "towards") if clear else None)
        return found


class Segmenter(Looker[Masks]):
    """A mask for each box, covering the whole picture at its own size."""

    auto = "AutoModelForMaskGeneration"
    what = "a segmenter"

    def look(self, pictures: Sequence[Picture], boxes: Sequence[Sequence[Box]]) -> list[list[NDArray[np.bool_]]]:
        """One list of masks (height, width) per picture, in the order of its boxes."""
        return self.machine.in_batches(list(zip(pictures, boxes, strict=True)), self._batch)

    def _batch(self, batch: Sequence[tuple[Picture, Sequence[Box]]]) -> list[list[NDArray[np.bool_]]]:
        import torch

        model, processor = self.model.load()
        most = max(len(boxes) for _, boxes in batch)
        images, prompts = [], []
        for picture, boxes in batch:
            image = picture.shown
            scale = np.array([image.width, image.height] * 2)
            # Pad to the same number of boxes per picture, as one tensor needs; the padding is cut off below.
            even = [*boxes, *[boxes[-1]] * (most - len(boxes))]
            images.append(image)
            prompts.append([(np.array(box) * scale).tolist() for box in even])
        inputs = processor(images=images, input_boxes=prompts, return_tensors="pt")
        original, reshaped = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
        with torch.inference_mode():
            outputs = model(**to_model(inputs, model), multimask_output=False)
        masks = processor.image_processor.post_process_masks(outputs.pred_masks.float().cpu(), original, reshaped)
        return [
            [mask.numpy() for mask in of_picture[: len(boxes), 0]]
            for of_picture, (_, boxes) in zip(masks, batch, strict=True)
        ]
