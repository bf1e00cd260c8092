"""What the dashboards show: for each panel its queries, its unit, and a description that says what to do when it looks
wrong.

`{}` in a query is the selector of the chosen namespace and model. Legends are Grafana's: {{label}}.
"""
import dataclasses

SELECTOR = '{namespace=~"$namespace", model=~"$model"}'
ERRORS = "UNKNOWN|INTERNAL|UNAVAILABLE|DATA_LOSS"
ROLES = ("router", "scheduler", "worker")
TOKENS_PER_SECOND = "suffix: tokens/s"


@dataclasses.dataclass
class Panel:
    title: str
    unit: str  # One of Grafana's unit ids, or "suffix:TEXT".
    targets: list  # (query, legend)
    description: str
    kind: str = "timeseries"
    thresholds: list = None  # (value, color) from low to high.
    stacked: bool = False


def rate(metric, by="", where=""):
    """Sum of the counter's rate; `where`: further matchers."""
    selector = SELECTOR[:-1] + (", " + where if where else "") + "}"
    return f"sum{' by (' + by + ')' if by else ''} (rate({metric}{selector}[$__rate_interval]))"


def quantiles(metric, *qs, by="", legend=""):
    extra = f", {by}" if by else ""
    return [(f"histogram_quantile({q}, {rate(metric + '_bucket', 'le' + extra)})", f"{legend}p{q * 100:g}") for q in qs]


def mean(metric):
    return f"{rate(metric + '_sum')} / {rate(metric + '_count')}"


def stat(title, query, description, unit="short", thresholds=None):
    return Panel(title, unit, [(query, "")], description, "stat", thresholds)


ERROR_SHARE = (f"({rate('fathom_router_requests_total', where=f'outcome=~{chr(34)}{ERRORS}{chr(34)}')}"
               f" + {rate('fathom_router_refused_total', where=f'code=~{chr(34)}{ERRORS}{chr(34)}')})"
               f" / ({rate('fathom_router_requests_total')} + {rate('fathom_router_refused_total')})")
BAD_IF_0 = [(None, "red"), (1, "green")]

OVERVIEW = [
    ("Now", [
        stat("Routers ready", "sum(fathom_router_ready{})",
             "Routers that would answer a request now. If 0: look at the next three numbers from left to right.",
             thresholds=BAD_IF_0),
        stat("Leaders", "sum(fathom_scheduler_leads{})",
             "Schedulers that lead; always 1. If 0: the runbook of FathomNoLeader.", thresholds=BAD_IF_0 + [(2, "red")]),
        stat("Groups", "sum(fathom_scheduler_groups{})",
             "Groups of workers that take work. If fewer than started: `fathom status` names the ranks that are missing.",
             thresholds=BAD_IF_0),
        stat("Workers", "sum(fathom_scheduler_workers{})",
             "Workers connected to the scheduler. If fewer than started: their logs; Fathom / Failures shows restarts.",
             thresholds=BAD_IF_0),
        stat("Running", "sum(fathom_scheduler_requests_running{})",
             "Sequences that are computed now. If it stays at --max-num-seqs while requests wait: add groups."),
        stat("Waiting", "sum(fathom_scheduler_requests_waiting{})",
             "Requests that wait for a slot or for blocks. If it grows: the runbook of FathomQueueGrowing.",
             thresholds=[(None, "green"), (50, "orange")]),
        stat("KV cache", "max(fathom_scheduler_kv_cache_usage_ratio{})",
             "Share of the KV blocks in use. If near 100 % with requests waiting: the runbook of FathomKvCacheFull.",
             "percentunit",
             [(None, "green"), (0.95, "orange")]),
        stat("Failed", ERROR_SHARE,
             "Share of requests that failed by a fault of the cluster. If above 1 %: the runbook of FathomErrorRate.",
             "percentunit",
             [(None, "green"), (0.01, "red")]),
    ]),
    ("Traffic", [
        Panel("Requests by outcome", "reqps", [(rate("fathom_router_requests_total", "outcome") + " > 0", "{{outcome}}")],
              "How streams ended. END_TOKEN, STOP_TOKEN, STOP_STRING and LENGTH are whole answers. If CANCELLED rises, "
              "clients give up: compare with the time to the first token. UNAVAILABLE or INTERNAL: Fathom / Failures.",
              stacked=True),
        Panel("Refused by code", "reqps", [(rate("fathom_router_refused_total", "code") + " > 0", "{{code}}")],
              "Requests refused before they began. If RESOURCE_EXHAUSTED: the queue is full, add groups. "
              "INVALID_ARGUMENT: a client sends wrong fields; the error that it gets names the field.", stacked=True),
    ]),
    (None, [
        Panel("Tokens", TOKENS_PER_SECOND,
              [(rate("fathom_scheduler_generation_tokens_total"), "generated"),
               (rate("fathom_scheduler_prompt_tokens_total"), "prompt")],
              "Throughput of the cluster. If it falls while requests wait: look at the step time in Fathom / Scheduler "
              "and KV."),
        Panel("Running and waiting", "short",
              [("sum(fathom_scheduler_requests_running{})", "running"),
               ("sum(fathom_scheduler_requests_waiting{})", "waiting")],
              "Load. If waiting grows while running is flat: the cluster is full, or no group takes work (waiting by "
              "reason)."),
    ]),
    ("Latency, as clients see it", [
        Panel("Time to the first token", "s", quantiles("fathom_router_first_token_seconds", 0.5, 0.95, 0.99),
              "From a request's start to its first token. If it rises: Fathom / Request latency divides it into queue and "
              "prefill."),
        Panel("Time between tokens", "s", quantiles("fathom_router_token_gap_seconds", 0.5, 0.95, 0.99),
              "If p99 rises alone: long prompts share steps with decode rows (--max-num-batched-tokens). If all rise: the "
              "step time."),
        Panel("Whole request", "s", quantiles("fathom_router_request_seconds", 0.5, 0.95, 0.99),
              "From a request's start to its end. If it rises and the two panels beside it do not: answers got longer."),
    ]),
    ("Versions", [
        Panel("Processes by version", "short",
              [("count by (version) (fathom_router_build_info{})", "router {{version}}"),
               ("count by (version) (fathom_scheduler_build_info{})", "scheduler {{version}}"),
               ("count by (version) (fathom_worker_build_info{})", "worker {{version}}")],
              "Two versions of a role are normal during an update only. If they stay: an update stopped half way.",
              stacked=True),
    ]),
]

LATENCY = [
    ("What a client waits for", [
        Panel("Time to the first token", "s", quantiles("fathom_router_first_token_seconds", 0.5, 0.9, 0.95, 0.99),
              "From a request's start to its first token. If it rises: the runbook of FathomSlowFirstToken."),
        Panel("Time between tokens", "s", quantiles("fathom_router_token_gap_seconds", 0.5, 0.9, 0.95, 0.99),
              "The gap between two tokens of a stream. If p99 rises alone: prefill of long prompts in the same steps."),
        Panel("Time per output token", "s", quantiles("fathom_router_time_per_output_token_seconds", 0.5, 0.9, 0.99),
              "Mean of a request after its first token. If it rises with the batch size: more groups; without: a slow "
              "step."),
    ]),
    (None, [
        Panel("Where a request's time goes", "s",
              [(mean(f"fathom_router_request_{part}_seconds"), part) for part in ("queue", "prefill", "decode")],
              "Means of the three parts. If queue is the largest: too few slots or blocks. Prefill: long prompts or a "
              "small token budget. Decode: long answers or slow steps.", stacked=True),
        Panel("Whole request", "s", quantiles("fathom_router_request_seconds", 0.5, 0.9, 0.95, 0.99),
              "From start to end. If p99 is far above p90: a few very long answers, or sessions that were suspended."),
        Panel("First token, all requests", "s",
              [(rate("fathom_router_first_token_seconds_bucket", "le"), "{{le}}")],
              "How many requests had which time to the first token. If there are two bands: two kinds of prompts, or one "
              "group that is slower than the others.", "heatmap"),
    ]),
    ("Parts", [
        Panel("Queue", "s", quantiles("fathom_router_request_queue_seconds", 0.5, 0.95, 0.99),
              "Time before the first step. If it rises: the runbook of FathomQueueGrowing."),
        Panel("Prefill", "s", quantiles("fathom_router_request_prefill_seconds", 0.5, 0.95, 0.99),
              "Time of computing the prompt. If it rises at equal prompt lengths: step time in Fathom / Scheduler and KV."),
        Panel("Decode", "s", quantiles("fathom_router_request_decode_seconds", 0.5, 0.95, 0.99),
              "Time from the first token to the last one. If it rises at equal answer lengths: step time, preemptions."),
    ]),
    ("Sizes", [
        Panel("Prompt tokens", "short", quantiles("fathom_router_request_prompt_tokens", 0.5, 0.9, 0.99),
              "Length of the prompts. If it jumps: a client changed; prefill and KV use grow with it."),
        Panel("Generated tokens", "short", quantiles("fathom_router_request_generation_tokens", 0.5, 0.9, 0.99),
              "Length of the answers. If it equals max_tokens often: answers are cut off (outcome LENGTH)."),
        Panel("max_tokens of requests", "short", quantiles("fathom_router_request_max_tokens", 0.5, 0.9, 0.99),
              "What clients allow. If it is far above the generated tokens: fair-share counts more than is used; tell the "
              "clients."),
    ]),
    ("Tokens of clients", [
        Panel("Tokens", TOKENS_PER_SECOND,
              [(rate("fathom_router_tokens_total"), "generated"), (rate("fathom_router_prompt_tokens_total"), "prompt"),
               (rate("fathom_router_cached_tokens_total"), "prompt, cached")],
              "What clients sent and got. If it is below the scheduler's tokens: work is computed again (Fathom / "
              "Failures)."),
        Panel("Streams and connections", "short",
              [("sum(fathom_router_streams_open{})", "streams"), ("sum(fathom_router_connections_open{})", "connections"),
               ("sum(fathom_router_sessions_kept{})", "sessions kept for a resume")],
              "If connections grow without streams: clients do not reuse or close them; the port closes the longest idle "
              "one when it is full."),
    ]),
]

SCHEDULER = [
    ("Steps", [
        Panel("Step time", "s", quantiles("fathom_scheduler_step_seconds", 0.5, 0.95, 0.99),
              "From sending a plan to its result. If it rises at equal batches: a straggler (Fathom / Ranks) or a "
              "throttled GPU."),
        Panel("Sequences of a step", "short", quantiles("fathom_scheduler_batch_size", 0.5, 0.95),
              "If it stays at --max-num-seqs while requests wait: more --max-num-seqs if `fathom plan` shows the memory, "
              "or more groups."),
        Panel("Tokens of a step", "short", quantiles("fathom_scheduler_batch_tokens", 0.5, 0.95),
              "If it stays at --max-num-batched-tokens: prompts wait for their chunks; a larger budget costs gaps between "
              "tokens."),
    ]),
    (None, [
        Panel("Steps", "ops", [(rate("fathom_scheduler_steps_total"), "steps")],
              "If it falls to 0 while requests run: a hung rank; the runbook of FathomRankHung."),
        Panel("Tokens", TOKENS_PER_SECOND,
              [(rate("fathom_scheduler_generation_tokens_total"), "generated"),
               (rate("fathom_scheduler_prompt_tokens_total"), "prompt")],
              "If it falls while requests wait: the step time above."),
        Panel("Requests", "reqps",
              [(rate("fathom_scheduler_requests_finished_total"), "finished"),
               (rate("fathom_scheduler_requests_failed_total"), "failed"),
               (rate("fathom_scheduler_requests_refused_total"), "refused")],
              "If refused rises: the queue is full (--waiting-requests-max). If failed rises: Fathom / Failures."),
    ]),
    ("Queue", [
        Panel("Running and waiting", "short",
              [("sum(fathom_scheduler_requests_running{})", "running"),
               ("sum(fathom_scheduler_requests_waiting{})", "waiting")],
              "If waiting grows: the panel beside says for what."),
        Panel("Waiting by reason", "short",
              [("sum by (reason) (fathom_scheduler_requests_waiting_by_reason{})", "{{reason}}")],
              "If slots: more --max-num-seqs or groups. blocks: the KV cache is full. no_group: no group is up, look at "
              "`waiting` of `fathom status`.", stacked=True),
        Panel("Wait by Little's law", "s",
              [("sum(fathom_scheduler_requests_waiting{}) / " + rate("fathom_scheduler_requests_finished_total"),
               "wait of the last one")],
              "Waiting requests divided by the rate of requests that end. If above 30 s and rising: the runbook of "
              "FathomQueueGrowing."),
    ]),
    ("KV cache", [
        Panel("Blocks", "short",
              [("sum(fathom_scheduler_blocks_used{})", "used"), ("sum(fathom_scheduler_blocks{})", "all")],
              "If used does not return to 0 when nothing runs: record the scheduler's events and report it. If all falls: "
              "a group was lost."),
        Panel("Use", "percentunit", [("max(fathom_scheduler_kv_cache_usage_ratio{})", "use")],
              "Near 100 % is good use of the memory. If sessions are preempted at the same time: the runbook of "
              "FathomKvCacheFull."),
        Panel("Prefix cache", "percentunit",
              [(rate("fathom_scheduler_prefix_cache_hit_tokens_total") + " / "
                + rate("fathom_scheduler_prefix_cache_queries_tokens_total"), "hits")],
              "Share of prompt tokens found in the cache; empty without a prefix cache. If it falls: clients changed "
              "their common prompt."),
    ]),
    ("Suspended work", [
        Panel("Suspensions and preemptions", "ops",
              [(rate("fathom_scheduler_suspensions_total"), "suspended, for any cause"),
               (rate("fathom_scheduler_preemptions_total"), "preempted, for want of blocks")],
              "If preemptions stay above 0: fewer --max-num-seqs or more blocks. Suspensions alone: lost clients or "
              "groups."),
        Panel("Tokens that were computed again or dropped", TOKENS_PER_SECOND,
              [(rate("fathom_scheduler_replayed_tokens_total"), "computed again"),
               (rate("fathom_scheduler_tokens_dropped_total"), "dropped")],
              "The cost of suspensions and of run-ahead. If it is a large part of all tokens: find the cause in the panel "
              "beside."),
    ]),
]

RANKS = [
    ("As the scheduler sees them", [
        Panel("Longest time without progress", "s", [("max(fathom_scheduler_rank_still_seconds{})", "still")],
              "Of a rank inside a step. If above 3 s: a hung rank; `fathom status` names it. At the stall limit its group "
              "is given up.",
              thresholds=[(None, "green"), (3, "red")]),
        Panel("Steps that waited for a rank", "percentunit",
              [(rate("fathom_scheduler_straggler_steps_total", "group, rank")
                + " / scalar(" + rate("fathom_scheduler_steps_total") + " / sum(fathom_scheduler_groups{}))",
                "group {{group}} rank {{rank}}")],
              "Share of a group's steps in which the others waited for this rank for more than half of the step. If above "
              "50 %: the runbook of FathomStraggler."),
    ]),
    (None, [
        Panel("Step time by rank", "s",
              [("max by (group, rank) (fathom_scheduler_rank_step_seconds{})", "group {{group}} rank {{rank}}")],
              "If one rank of a group is above the others: its card or host is slower. If all rise: larger batches or "
              "longer prompts."),
        Panel("Time in collectives by rank", "percentunit",
              [(rate("fathom_scheduler_rank_collective_seconds_total", "group, rank"), "group {{group}} rank {{rank}}")],
              "Share of the time that a rank spends in collectives, waiting for its peers. If one rank is far below its "
              "peers: the others wait for it."),
    ]),
    ("As the workers see themselves", [
        Panel("Step time", "s", quantiles("fathom_worker_step_seconds", 0.5, by="instance", legend="{{instance}} "),
              "Plan read to result ready. If one worker differs: record a trace (`fathom profile --worker`)."),
        Panel("Computing", "s", quantiles("fathom_worker_step_compute_seconds", 0.5, by="instance", legend="{{instance}} "),
              "Forward pass and sampler. If it is much less than the step time: the worker waits for plans or writes "
              "results slowly."),
        Panel("In collectives", "percentunit",
              [(rate("fathom_worker_collective_seconds_total", "instance"), "{{instance}}")],
              "Share of the time in collectives. If high on all: a slow link between the ranks; on all but one: that one "
              "is slow."),
    ]),
    (None, [
        Panel("GPU busy", "percentunit",
              [(rate("fathom_worker_device_busy_seconds_total", "instance"), "{{instance}}")],
              "Share of the time that the device computes steps. If low while requests wait: the host is the limit; "
              "record a trace."),
        Panel("Group and rank", "short",
              [("max by (instance) (fathom_worker_group{})", "{{instance}} group"),
               ("max by (instance) (fathom_worker_rank{})", "{{instance}} rank")],
              "Which seat a worker has. If it changes: a group was formed again (Fathom / Failures). Below 0 (not shown): "
              "none."),
        Panel("Layer in work", "short", [("max by (instance) (fathom_worker_step_layer{})", "{{instance}}")],
              "If a worker stays at one layer while others of its group wait: it hangs there; `fathom status` has the "
              "details."),
    ]),
    ("Memory", [
        Panel("Memory by arena", "bytes",
              [("sum by (instance, arena) (fathom_worker_memory_bytes{})", "{{instance}} {{arena}}")],
              "What a worker took by its plan. It is constant after the start. If it differs between ranks of a stage: "
              "other flags.",
              stacked=True),
        Panel("GPU memory by arena", "bytes",
              [("sum by (instance, arena) (fathom_worker_gpu_memory_usage_bytes{})", "{{instance}} {{arena}}")],
              "Use of the device. If `other` grows: another process uses the card; lower --gpu-memory-utilization or move "
              "it.",
              stacked=True),
        Panel("Weights and KV cache", "bytes",
              [("sum(fathom_worker_weights_bytes{})", "weights"), ("sum(fathom_worker_kv_cache_bytes{})", "KV cache")],
              "Of all workers. If the KV cache is small beside the weights: a wider -tp or more cards (`fathom plan`)."),
    ]),
]

FAILURES = [
    ("Processes and groups", [
        Panel("Processes", "short",
              [("count(fathom_router_build_info{})", "routers"), ("count(fathom_scheduler_build_info{})", "schedulers"),
               ("count(fathom_worker_build_info{})", "workers")],
              "Processes that answer a scrape. If one is missing: its log, its exit code (docs/OPERATIONS.md)."),
        Panel("Groups", "short",
              [("sum(fathom_scheduler_groups{})", "groups that take work"),
               ("sum(increase(fathom_scheduler_groups_formed_total{}[$__rate_interval]))", "formed"),
               ("sum(increase(fathom_scheduler_groups_lost_total{}[$__rate_interval]))", "lost")],
              "If groups are lost again and again: `last loss` of `fathom status`; the runbook of FathomRestartLoop."),
        Panel("Leader and term", "short",
              [("sum(fathom_scheduler_leads{})", "leaders"), ("max(fathom_scheduler_term{})", "term"),
               ("sum(fathom_router_scheduler_up{})", "routers that see a leader")],
              "If leaders is 0: FathomNoLeader. If the term rises: schedulers restart or lose their lead. If routers that "
              "see a leader are fewer than routers: the network between them."),
    ]),
    ("What clients notice", [
        Panel("Requests that failed", "reqps",
              [(rate("fathom_router_requests_total", "outcome", f'outcome=~"{ERRORS}"') + " > 0", "{{outcome}}"),
               (rate("fathom_router_refused_total", "code", f'code=~"{ERRORS}"') + " > 0", "refused: {{code}}")],
              "Faults of the cluster. If above 1 % of all requests: the runbook of FathomErrorRate.", stacked=True),
        Panel("Failed share", "percentunit", [(ERROR_SHARE, "failed")],
              "If above 1 %: the runbook of FathomErrorRate.", thresholds=[(None, "green"), (0.01, "red")]),
        Panel("Connections closed", "ops", [(rate("fathom_router_connections_closed_total", "reason"), "{{reason}}")],
              "If idle or full: more clients than descriptors (LimitNOFILE). If hostile: cut for what their calls did; "
              "use --edge."),
    ]),
    ("What was saved", [
        Panel("Failovers", "ops", [(rate("fathom_scheduler_failovers_total"), "sessions that continued elsewhere"),
                                   (rate("fathom_router_resubmits_total"), "sessions submitted again")],
              "Answers that continued after a loss. If they occur without a deployment: find the loss in Groups above."),
        Panel("Tokens computed again", TOKENS_PER_SECOND,
              [(rate("fathom_scheduler_replayed_tokens_total"), "computed again"),
               (rate("fathom_router_tokens_dropped_total"), "came twice and were dropped")],
              "The cost of losses and preemptions. If it does not fall to 0 after a loss: sessions are preempted (KV "
              "cache)."),
        Panel("Old messages", "ops", [(rate("fathom_scheduler_stale_epoch_rejected_total"), "of another term or epoch"),
                                      (rate("fathom_scheduler_unreadable_messages_total"), "unreadable")],
              "Old messages after a loss are expected and refused. If unreadable is above 0: processes of different "
              "versions."),
    ]),
    ("Should be 0", [
        Panel("Row faults", "ops", [(rate("fathom_worker_row_faults_total", "instance"), "{{instance}}")],
              "Rows with non-finite logits. If above 0: --diagnose-numerics names the layer; one worker alone: its card."),
        Panel("Protocol faults", "ops", [(rate("fathom_router_stream_resets_total"), "streams reset by a router"),
                                         (rate("fathom_scheduler_outbox_overflows_total"), "peers that did not read")],
              "If above 0: a router that is overloaded or stopped, or a fault of ours; its log has the line."),
        Panel("Diagnostics lost", "ops",
              [(rate(f"fathom_{role}_diagnostics_dropped_total"), f"{role}, log lines") for role in ROLES]
              + [(rate("fathom_router_events_dropped_total", "what"), "router, {{what}}")],
              "If above 0: a full disk, or a reader of the logs or traces that is gone."),
    ]),
    ("Starts", [
        Panel("Duration of the start by phase", "s",
              [(f"max by (phase) (fathom_{role}_start_seconds{{}})", f"{role} {{{{phase}}}}") for role in ("router",
               "scheduler", "worker")],
              "If weights grow: the model is not in the page cache, or the disk is slow. If a duration changes: a process "
              "started again."),
        Panel("HTTP answers with an error", "ops",
              [(rate(f"fathom_{role}_http_requests_total", "code", 'code=~"5.."'), f"{role} {{{{code}}}}")
               for role in ROLES],
              "Probes that failed. If 503 occurs during a start or a drain only: as designed. Else: `curl` the probe, its "
              "reason says why."),
    ]),
]

ALL = {
    "overview": ("Overview", "Is the cluster well, and what do its clients see?", OVERVIEW),
    "request-latency": ("Request latency", "Where the time of requests goes.", LATENCY),
    "scheduler-kv": ("Scheduler and KV", "Batches, queue and KV cache.", SCHEDULER),
    "ranks": ("Ranks", "Progress, speed and memory of each rank.", RANKS),
    "failures": ("Failures", "What broke, what it cost, and what must not happen.", FAILURES),
}
