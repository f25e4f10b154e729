"""One question and its answer, typed: encode, ask, decode, and a No becomes an error."""

from __future__ import annotations

from typing import TypeVar

from appliance.errors import DeniedError, LinkError, WireError
from appliance.interfaces import Link
from appliance.wire import Answer, Deny, Request, decode_answer, encode, printable

A = TypeVar("A", bound=Answer)


def ask(
    link: Link, question: Request, expected: type[A] | tuple[type[A], ...], timeout_s: float
) -> A:
    """The answer.

    Args:
        link: to ask on.
        question: what to ask.
        expected: the answers that make sense here.
        timeout_s: how long to wait.

    Raises:
        DeniedError: whoever was asked said no.
        LinkError: no answer in time, or one that makes no sense here.
    """
    try:
        answer = decode_answer(link.request(encode(question), timeout_s))
    except WireError as e:
        raise LinkError(f"the answer: {e}") from e
    if isinstance(answer, Deny):
        raise DeniedError(f"refused: {printable(answer.reason)}")
    if not isinstance(answer, expected):
        raise LinkError(f"it answered a {type(question).__name__} with a {type(answer).__name__}")
    return answer
