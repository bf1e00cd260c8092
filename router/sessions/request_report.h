// router/sessions/request_report.h: what a router can say of one request for `fathom explain` and
// for traces: its end, and where its time went. Plain data.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "cluster/request.h"
#include "cluster/request_timings.h"
#include "common/trace_context.h"
#include "common/types.h"

namespace fathom::router {

struct RequestReport {
  SessionKey key;
  SpanContext trace;
  bool chat = false;
  std::string model;
  // "RUNNING", or how the request ended (Session::outcome), or the code of its refusal.
  std::string outcome;
  std::string reason;  // Of an error: ErrorDetail's reason and the message, else empty.
  std::string message;
  bool accepted = false;  // A scheduler has taken it.
  int32_t submits = 0;    // Submits of the last stream; more than 1: to a new stream or leader.
  // Of several sequences: the prompt once and the tokens of all of them. The outcome and the
  // timings are those of the sequence that ended last.
  Usage usage;
  int32_t sequences = 1;      // 0: not known.
  int32_t max_tokens = 0;     // Of each sequence.
  TimeUs begun_us = 0;        // The request's first session in this router.
  TimeUs ended_us = 0;        // When it left this router; 0: it has not.
  int64_t ended_ago_us = -1;  // The time since then, when the report was asked for; -1: none.
  // From `begun_us` to the end, also to the scheduler's end; for a request that runs, until the
  // report was made.
  int64_t whole_us = 0;
  int64_t first_token_us = -1;  // From `begun_us`, in the router; -1: no token came.
  // The scheduler's, until the report was made or the request ended. nullopt: not known; then all
  // of the whole is transport.
  std::optional<RequestTimings> timings;

  // The parts of the whole that are not the scheduler's: the router before the Submit, and the
  // messages between the two.
  int64_t TransportUs() const { return whole_us - SchedulerUs(); }
  int64_t SchedulerUs() const { return timings ? timings->WholeUs() : 0; }

  // The scheduler's clock counted until `now`. The whole of a request that another router began is
  // not known here, so it is at least the scheduler's.
  void Take(const RequestTimings& scheduler, int64_t router_us) {
    timings = scheduler;
    whole_us = std::max(router_us, scheduler.WholeUs());
  }
};

}  // namespace fathom::router
