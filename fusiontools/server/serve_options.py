"""The options of `fuse-serve`."""

from __future__ import annotations

from fusiontools.config.options import Settings, option


class ServeOptions(Settings):
    """Where the server listens, what it offers, and what bounds it; places of workers are shares of these."""

    host: str = option(
        "127.0.0.1", "--host", metavar="ADDRESS",
        help="Where to listen; others than this machine need keys, in $FUSION_SERVER_API_KEYS.",
    )  # fmt: skip
    port: int = option(
        8383, "-p", "--port", minimum=0, maximum=65535, metavar="N", help="The port; 0 takes a free one."
    )
    chain: str | None = option(
        None, "--chain", metavar="TEXT", help="What `fusion` does: 'route | panel | judge | synth'."
    )
    recipes: tuple[str, ...] = option(
        (), "--recipe", multiple=True, metavar="NAME|PATH|all",
        help="Offer this recipe beside that of -c, as `fusion/NAME`; repeat for more. `all` is every shipped one that "
        "has its keys.  [default: all, where -c is no file]",
    )  # fmt: skip
    allow_models: tuple[str, ...] = option(
        (), "--allow-model", multiple=True, metavar="GLOB",
        help="Let clients name these models too, at the recipe's endpoint.  [default: those of the recipes]",
    )  # fmt: skip
    overrides: str = option(
        "all",
        "--overrides",
        metavar="all|none|KEY,…",
        help="What clients may say in a request's `fusion` object; `web_search` only where named: all,web_search.",
    )
    show_recipes: bool = option(
        False, "--show-recipes",
        help="Show clients the recipes whole: system prompts, worked turns, `extra`, paths of templates.",
    )  # fmt: skip
    max_calls: int = option(
        64, "--max-calls", minimum=1, metavar="N", help="Most panel calls of one request that a client may ask for."
    )
    keepalive: str = option(
        "comment", "--keepalive", choices=("comment", "chunk", "off"), help="How a silent stream is kept open."
    )
    keepalive_s: float = option(
        15.0, "--keepalive-interval", minimum=0.01, metavar="S", help="After how many silent seconds."
    )
    progress: str = option(
        "comment", "--progress", choices=("comment", "reasoning", "draft", "off"),
        help="How a stream says what goes on: as comments, as the model's thoughts, with the first member's draft as "
        "these, or not at all.",
    )  # fmt: skip
    # Agents take `usage` for the length of the conversation and cut it when that nears the window. Which client does so
    # cannot be told: most say the name of the library that they are built on.
    usage: str = option(
        "answer", "--usage", choices=("answer", "total"),
        help="Tokens in `usage`: of the call that wrote the answer, or of all calls, as in `fusion.usage`; `cost` is "
        "always the whole.",
    )  # fmt: skip
    max_in_flight: int = option(
        256, "--max-in-flight", minimum=1, metavar="N", help="Requests that are worked on at once."
    )
    max_queue: int = option(1024, "--max-queue", minimum=0, metavar="N", help="Requests that wait; more get 503.")
    queue_s: float = option(30.0, "--queue-timeout", minimum=0.01, metavar="S", help="Longest wait in the queue.")
    rate_per_min: float = option(
        0.0, "--rate-limit", minimum=0, metavar="N", help="Requests a minute for each key.  [default: no limit]"
    )
    max_request_cost_usd: float | None = option(
        None, "--max-request-cost-usd", minimum=0, metavar="USD", help="What one request may cost.  [default: no limit]"
    )
    max_day_cost_usd: float | None = option(
        None,
        "--max-day-cost-usd",
        minimum=0,
        metavar="USD",
        help="What a key may spend in one day (UTC), at all servers of this user.  [default: no limit]",
    )
    cache_s: float = option(
        0.0,
        "--cache",
        minimum=0,
        metavar="S",
        help="Answer equal requests of one key from memory for S seconds.  [default: off]",
    )
    cache_entries: int = option(512, "--cache-entries", minimum=1, metavar="N", help="Answers kept in memory.")
    cache_mib: float = option(64.0, "--cache-mib", minimum=0.001, metavar="MIB", help="What they may have together.")
    store_h: float | None = option(
        None, "--store", minimum=0, metavar="HOURS",
        help="Keep responses and conversations so long, in memory, for a next turn that names them; 0 keeps none.  "
        "[default: 24, with --workers 0]",
    )  # fmt: skip
    store_mib: float = option(64.0, "--store-mib", minimum=0.001, metavar="MIB", help="What is kept for each key.")
    max_body_mib: float = option(32.0, "--max-body-mib", minimum=0.001, metavar="MIB", help="Refuse larger bodies.")
    max_messages: int = option(4096, "--max-messages", minimum=1, metavar="N", help="Refuse longer conversations.")
    read_s: float = option(
        20.0, "--read-timeout", minimum=0.05, metavar="S", help="Longest wait for a request to come in whole."
    )
    allow_hosts: tuple[str, ...] = option(
        (),
        "--allow-host",
        multiple=True,
        metavar="NAME",
        help="Another name under which this server without keys may be asked; repeat for more.",
    )
    allow_origins: tuple[str, ...] = option(
        (), "--allow-origin", multiple=True, metavar="ORIGIN", help="A web page's origin that may ask; repeat for more."
    )
    max_depth: int = option(
        1, "--max-depth", minimum=1, metavar="N", help="How many fusion servers a request may go through."
    )
    workers: int = option(
        1, "--workers", minimum=1, metavar="N", help="Processes that serve; each has an N-th of the places."
    )
    drain_s: float = option(
        30.0, "--drain", minimum=0, metavar="S", help="After SIGTERM, seconds for what is under way."
    )
    no_page: bool = option(False, "--no-page", help="Serve no page at /.")
    no_page_keys: bool = option(
        False, "--no-page-keys",
        help="Let the page of a server on loopback take no endpoint's key, where one is missing, into its memory.",
    )  # fmt: skip
    open: bool = option(False, "--open", help="Open the page in a browser, where there is one.")
    log: bool = option(False, "--log", help="One line of JSON on standard error for every request; no texts, no keys.")
