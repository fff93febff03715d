"""README.md of an exported folder: its use with onnxruntime and tokenizers alone, its figures, and their origin."""

from typing import Any

USES = {
    "masked_lm": "token = encoded.tokens.index(MASK); print(tokenizer.decode([int(outputs[0][0, token].argmax())]))",
    "hidden": "print(outputs[0].shape)  # [1, tokens, width]",
    "regression": "print(outputs[0][0, 0])",
    "classification": "print(LABELS[int(outputs[0][0].argmax())])",
    "multi_label": "print([label for label, logit in zip(LABELS, outputs[0][0]) if logit > 0])",
    "tagging": "print([LABELS[number] for number in outputs[0][0].argmax(-1)])  # one for each token",
    "question_answering": "print(outputs[0].argmax(), outputs[1].argmax())  # first and last token of the answer",
}


NOTES = {
    "int8, a scale for each token": "Activations have a scale for each token. So a row's logits do not depend on the rows beside it.",
    "int8, a scale for the whole batch": "One activation scale serves a whole batch. "
    "Rows of like length in a batch change each other's logits least.",
    "int8, scales from calibration": "Activations have fixed scales. So a row's logits do not depend on the rows beside it.",
    "int8, a scale for each block of a token": "The 4-bit weights need ONNX Runtime. A row's logits do not depend on the rows beside it.",
}
"""By the record's `activations`."""


def usage(record: dict[str, Any]) -> str:
    """Python that runs the folder's model on one text, when it is started inside the folder."""
    inputs = record["inputs"]
    values = {"input_ids": "encoded.ids", "attention_mask": "encoded.attention_mask", "token_type_ids": "encoded.type_ids"}
    feeds = ", ".join(f'"{name}": numpy.array([{values[name]}])' for name in inputs)
    text = f'"The house stands on a {record["mask_token"]}."' if record["task"] == "masked_lm" else '"The house stands on a hill."'
    pair = ', "Where does the house stand?"' if record["task"] == "question_answering" else ""
    use = USES[record["task"]].replace("LABELS", repr(record["labels"])).replace("MASK", repr(record["mask_token"]))
    return "\n".join(
        [
            "import numpy, onnxruntime, tokenizers",
            'tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")',
            f"encoded = tokenizer.encode({text}{pair})",
            f'outputs = onnxruntime.InferenceSession("model.onnx").run(None, {{{feeds}}})',
            use,
        ]
    )


def readme(record: dict[str, Any]) -> str:
    """The whole README."""
    lines = [f"# {record['made_from']['name']}, {record['precision']}", ""]
    lines += [f"Exported by Stillhouse for {record['task'].replace('_', ' ')}. `stillhouse.json` has every figure and digest.", ""]
    if record["model_format"] == "onnx":
        lines += ["It needs `onnxruntime` and `tokenizers` alone:", "", "```python", usage(record), "```", ""]
        lines += ["Inputs are int64 [batch, length]. Pad on the right, with 0 in `attention_mask`.", ""]
    lines += [
        "| | |",
        "| --- | --- |",
        f"| bytes of the model file | {record['bytes']:,} |",
        f"| longest input, tokens | {record['max_tokens']:,} |",
    ]
    quality, speed = record["quality"], record["speed"]
    if quality:
        drop = f"{quality['drop']:.2f} ({quality['low']:.2f} to {quality['high']:.2f})"
        lines += [
            f"| compared with the original on | {quality['data']} |",
            f"| {quality['metric']}, original and exported | {quality['original']:.4f}, {quality['exported']:.4f} |",
            f"| lost, points, with its 95 % interval | {drop} |",
            *([] if quality["agreement"] is None else [f"| equal predictions | {quality['agreement']:.2%} |"]),
            f"| largest difference of logits | {quality['largest_logit_difference']:.3g} |",
            f"| served | {quality['served']} |",
            *([f"| remark | {quality['remark']} |"] if quality["remark"] else []),
        ]
    else:
        lines.append("| quality beside the original | not measured |")
    if speed:
        lines.append(f"| CPU time beside fp32, {speed['batch']} x {speed['tokens']} tokens | {speed['share_of_fp32']:.2f} |")
    lines += [f"| measured on | {record['machine']} |", f"| by | `{record['command']}` |", ""]
    if note := NOTES.get(record.get("activations") or ""):
        lines += [note, ""]
    return "\n".join(lines)
