"""The model card of an exported file, with the figures of its report."""

from convmixer_tf.data import CROP_FRACTION
from convmixer_tf.export.preparation import classifier_of
from convmixer_tf.model_card import ModelCard
from convmixer_tf.model_card import kept_part
from convmixer_tf.model_card import turned

# By which the card of an artefact is known from that of a run.
EXPORTED = "exported by convmixer_tf as"


def artefact_card(
    model,
    kind,
    report=None,
    *,
    class_names=None,
    trained_on=None,
    license=None,
    crop_fraction=CROP_FRACTION,
    orientation=None,
    max_pixel=255,
):
    """Makes the model card of an exported file or folder.

    Its figures are those of the report, and no others.

    Args:
        model: The `keras.Model` that was exported.
        kind: String, what the artefact is, such as `"an ONNX file"`.
        report: The `Report` of `verify`, or `None` if it was not compared.
        class_names: Names of the classes, or `None`.
        trained_on: String, on what, and whatever is published about it.
        license: String, licence of the weights.
        crop_fraction: Part of an image's side that is kept in evaluation.
        orientation: As for `data.decode_image`, or `None`.
        max_pixel: What white is, 1 or 255.

    Returns:
        A `ModelCard`.

    Example:

    ```python
    report = verify(model, "model.onnx", images, labels)
    card = artefact_card(model, "an ONNX file", report, license="MIT")
    print(card.text())
    ```
    """
    height, width, channels = (side or "any" for side in model.input_shape[1:])
    return ModelCard(
        title=f"{model.name}, {kind}",
        about=f"`{model.name}` ({model.count_params():,} weights), a ConvMixer "
        "(Trockman and Kolter,\n*Patches Are All You Need?*, arXiv "
        f"2201.09792), {EXPORTED} {kind}.",
        input=f"pixels in [0, {max_pixel}], which the model normalises itself: "
        f"height {height}, width {width},\n{channels} channels. Photographs "
        f"are cut as in evaluation: bicubic,\n{kept_part(crop_fraction)}. "
        f"They are {turned(orientation)}."
        f"{_tensors(report, 'inputs')}",
        output=_output(model) + _tensors(report, "outputs"),
        class_names=class_names and tuple(class_names),
        trained_on=trained_on,
        figures=_figures(report) if report else {},
        measured=_measured(report),
        license=license,
    )


def _output(model):
    classifier = classifier_of(model)
    if classifier is None:
        return "features."
    name = getattr(classifier.activation, "__name__", "")
    kinds = {
        "softmax": "probabilities of the classes, which add up to 1.",
        "sigmoid": "probabilities of the classes, each for itself.",
    }
    return kinds.get(name, "logits of the classes.")


def _tensors(report, side):
    """Lists the tensors of a file, where there is a report."""
    if not report:
        return ""
    found = []
    for tensor in getattr(report, side):
        shape = " x ".join(str(number or "?") for number in tensor["shape"])
        found.append(f"`{tensor['name']}` ({shape}, {tensor['dtype']})")
    return f" Tensors: {', '.join(found)}."


def _measured(report):
    if report is None:
        return "not measured."
    labelled = f"{report.labelled:,}" if report.labelled else "none"
    return (
        f"on {report.images:,} images, {labelled} of them labelled, in "
        f"{report.runtime}, against the\nKeras model that it was made from. "
        "The report in JSON lies beside this card."
    )


def _figures(report):
    rows = {"number format": report.scheme, "bytes": f"{report.size:,}"}
    if report.accuracy:
        rows["top-1"] = f"{report.accuracy['artefact']:.2%}"
        rows["top-1 of the Keras model"] = f"{report.accuracy['model']:.2%}"
    if report.agreement is not None:
        rows["same best class as the Keras model"] = f"{report.agreement:.2%}"
    for quantity, found in report.differences.items():
        if found:
            rows[f"difference of {quantity}"] = (
                f"{found['max']:.2g} at most, {found['mean']:.2g} in the mean"
            )
    return rows
