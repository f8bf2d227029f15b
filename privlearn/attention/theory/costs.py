"""Operations and bytes of exact and sketched attention, and the lengths at which they break even.

A multiplication with its addition counts as 2 operations. Per head, forward. Derived for the
algorithms of this package; below the break-even length the sketched form must lose.
"""

from __future__ import annotations


def _positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}: {size}; must be at least 1")


def n_features(r: int, *, packed: bool = True) -> int:
    """Numbers in the features of one key: r (r + 1) / 2, or r^2.

    Examples
    --------
    >>> n_features(32), n_features(32, packed=False)
    (528, 1024)
    """
    _positive(r=r)
    return r * (r + 1) // 2 if packed else r * r


def exact_flops(
    n: int, head_size: int = 64, value_size: int = 64, *, is_causal: bool = True
) -> int:
    """Operations of exact attention on n tokens; the causal form skips the upper half.

    Examples
    --------
    >>> exact_flops(32768) / 1e9
    137.438953472
    """
    _positive(n=n, head_size=head_size, value_size=value_size)
    return (1 if is_causal else 2) * n * n * (head_size + value_size)


def polysketch_flops(
    r: int = 32,
    *,
    head_size: int = 64,
    value_size: int = 64,
    block: int = 256,
    packed: bool = True,
    local_exact: bool = True,
    learned: bool = False,
) -> int:
    """Operations for each token of causal polysketch attention, whole tiles of scores counted.

    2 b (h + d + 1) in the block, 4 R (d + 1) for the state and its use, 8 h r for a random sketch
    of degree 4, or the nets of a learned one. Without exact blocks scores are of size r, not h.

    Examples
    --------
    >>> polysketch_flops(), polysketch_flops(packed=False), polysketch_flops(64)
    (219712, 348672, 639616)
    """
    _positive(r=r, head_size=head_size, value_size=value_size, block=block)
    local = 2 * block * ((head_size if local_exact else r) + value_size + 1)
    state = 4 * n_features(r, packed=packed) * (value_size + 1)
    if not learned:
        return local + state + 8 * head_size * r
    # Two nets, for a query and for a key.
    net = head_size * 8 * r + 8 * r * r + r * 8 * r + 8 * r * r
    return local + state + 2 * 2 * 2 * net


def break_even_length(
    r: int = 32,
    *,
    head_size: int = 64,
    value_size: int = 64,
    block: int = 256,
    packed: bool = True,
    local_exact: bool = True,
    learned: bool = False,
) -> float:
    """Length at which causal exact attention costs as many operations; arguments as above.

    Examples
    --------
    >>> round(break_even_length()), round(break_even_length(packed=False))
    (1716, 2724)
    """
    own = polysketch_flops(
        r, head_size=head_size, value_size=value_size, block=block, packed=packed,
        local_exact=local_exact, learned=learned,
    )  # fmt: skip
    return own / (head_size + value_size)


def state_floats(
    r: int = 32,
    *,
    head_size: int = 64,
    value_size: int = 64,
    block: int = 256,
    packed: bool = True,
    local_exact: bool = False,
) -> int:
    """Numbers that decoding keeps for each head of keys, however long the text.

    With exact blocks the keys and values of the block under way are kept too.

    Examples
    --------
    >>> state_floats()
    34320
    """
    _positive(r=r, head_size=head_size, value_size=value_size, block=block)
    buffer = block * (head_size + value_size + 1) if local_exact else 0
    return n_features(r, packed=packed) * (value_size + 1) + buffer


def cache_break_even(
    r: int = 32, *, head_size: int = 64, value_size: int = 64, packed: bool = True
) -> float:
    """Tokens from which on a cache of keys and values is larger than the state (no exact blocks).

    Examples
    --------
    >>> import math
    >>> [math.floor(cache_break_even(r, packed=p)) for r in (32, 64) for p in (False, True)]
    [520, 268, 2080, 1056]
    """
    state = state_floats(r, head_size=head_size, value_size=value_size, packed=packed)
    return state / (head_size + value_size)


def learned_parameters(head_size: int = 64, r: int = 32) -> int:
    """Weights of the learnable sketch of a layer.

    Examples
    --------
    >>> learned_parameters()
    82304
    """
    _positive(r=r, head_size=head_size)
    net = head_size * 8 * r + 8 * r * r + r * 8 * r + 8 * r * r + 2 * head_size + 2 * r
    return 2 * net


def minimum_bytes(
    n: int, head_size: int = 64, value_size: int = 64, *, bytes_per_number: int = 4
) -> int:
    """Bytes that any attention moves for each head: queries, keys and values in, results out.

    Examples
    --------
    >>> minimum_bytes(32768, bytes_per_number=2) / 1e6
    16.777216
    """
    _positive(n=n, head_size=head_size, value_size=value_size, bytes_per_number=bytes_per_number)
    return n * (2 * head_size + 2 * value_size) * bytes_per_number
