"""Whether what a request names is there, before torch is imported."""

from darkroom.app.drawing.request import Request
from darkroom.app.outcome import Answer
from darkroom.app.terminal import say
from darkroom.errors import ModelNotFoundError
from darkroom.weights.knowledge import knowledge_of

SHOWN, MOST = 3, 1000  # prompts whose words are shown; that are looked at


def check_model(request: Request) -> None:
    """Refuse a model that is not there; introduce the built-in one.

    Raises:
        ModelNotFoundError: there is no model of that name.
    """
    from darkroom.app.session import check_model_name

    try:
        check_model_name(request.model_name)
    except ModelNotFoundError as error:
        if request.model or not request.redrawn:
            raise
        raise ModelNotFoundError(
            f"--from: the picture was drawn by {request.model_name!r}, which is not found by that "
            f"name; say --model NAME|PATH ({error})"
        ) from None
    if request.refiner_name:
        try:
            check_model_name(request.refiner_name)
        except ModelNotFoundError as error:
            raise ModelNotFoundError(f"--refiner: {error}") from None
    if not request.model and not request.redrawn and (known := knowledge_of(request.model_name)):
        say(f"model: {known.line}")


def check_words(request: Request, answer: Answer) -> None:
    """Say which words of the prompts a built-in model never saw, and what it knows nearest."""
    known = knowledge_of(request.model_name)
    if known is None or request.is_exact:
        return
    answer.fields["knows"] = {known.name: known.about}
    told = []
    texts = [("prompt", text) for text in request.texts]
    texts += [("negative", request.negative)] if request.negative else []
    for which, text in texts[:MOST]:
        reading = known.read(text)
        if line := reading.line(known.name):
            told.append({which: text, **reading.plain()})
            if len(told) <= SHOWN:
                of = " (negative prompt)" if which == "negative" else ""
                say(f"note: {line}{of}", "yellow")
    answer.fields["words"] = told
    if len(told) > SHOWN:
        say(f"note: and so on, in {len(told) - SHOWN} more prompts; --json has all", "yellow")


def check_adapters(request: Request) -> None:
    """Refuse a LoRA, hypernetwork or textual inversion that is not there, or is another's.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelMismatchError: it does not go with the model.
    """
    from darkroom.app.session import base_of
    from darkroom.weights.adapters.embeddings import find_embedding
    from darkroom.weights.adapters.finding import check_base
    from darkroom.weights.adapters.hypernetworks import check_hypernetwork, find_hypernetwork
    from darkroom.weights.adapters.lora import check_kind, find_lora

    said = {lora.name for lora in request.loras}
    drawn = {lora.name for lora in request.redrawn.loras} if request.redrawn else set()
    for name in request.lora_names:
        try:
            path = find_lora(name)
        except ModelNotFoundError as error:
            if name in drawn - said:
                raise ModelNotFoundError(
                    f"--from: the picture was drawn with the LoRA {name!r}: {error}; "
                    "or say --lora PATH:WEIGHT"
                ) from None
            raise
        if base := check_kind(path):
            check_base(path, base, base_of(request.model_name))
    for name in request.hypernetwork_names:
        path = find_hypernetwork(name)
        if base := check_hypernetwork(path):
            check_base(path, base, base_of(request.model_name), "a hypernetwork")
    drawn = request.redrawn.embeddings if request.redrawn and not request.embeddings else ()
    for name in (*request.embeddings, *(used.name for used in drawn)):
        find_embedding(name)
