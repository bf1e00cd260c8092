// tests/sim/timings_check.h: what must hold of every RequestTimings, whatever happened.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <string>

#include "cluster/request_timings.h"

namespace fathom::sim {

// What is wrong; empty: nothing.
inline std::string WrongTimings(const RequestTimings& t) {
  const int64_t parts[] = {t.earlier_us, t.queue_us,     t.prefill_us,
                           t.decode_us,  t.suspended_us, t.replay_us};
  if (std::ranges::min(parts) < 0) return "a part below 0";
  if (std::ranges::min(t.queue_behind_us) < 0 || std::ranges::min(t.suspended_behind_us) < 0) {
    return "a wait below 0";
  }
  if (SumUs(t.queue_behind_us) != t.queue_us) {
    return fmt::format("{} us behind limits, {} us queued", SumUs(t.queue_behind_us), t.queue_us);
  }
  if (SumUs(t.suspended_behind_us) > t.suspended_us) {
    return fmt::format("{} us behind limits, {} us suspended", SumUs(t.suspended_behind_us),
                       t.suspended_us);
  }
  const int64_t whole_us = t.WholeUs() - t.earlier_us;
  if (t.first_token_us > t.last_token_us || t.last_token_us > whole_us) return "a token's time";
  if (t.stays.size() > kStaysMax || t.stays_total < std::ssize(t.stays)) return "the stays";
  int64_t seated_us = 0, prefilled_us = 0, end_us = 0;
  for (const Stay& stay : t.stays) {
    if (stay.at_us < end_us || stay.us < 0) return "the order of the stays";
    if (stay.prefill_us < 0 || stay.prefill_us > stay.us) return "the prefill of a stay";
    prefilled_us += stay.prefill_us;
    end_us = stay.at_us + stay.us;
    seated_us += stay.us;
  }
  if (end_us > whole_us) return "a stay after the end";
  const int64_t slots_us = t.prefill_us + t.decode_us + t.replay_us;
  if (t.stays_total == std::ssize(t.stays) ? seated_us != slots_us : seated_us > slots_us) {
    return fmt::format("{} us of stays, {} us in slots", seated_us, slots_us);
  }
  if (t.stays_total == std::ssize(t.stays) && prefilled_us != t.prefill_us + t.replay_us) {
    return fmt::format("{} us of prefill in stays, {} us in parts", prefilled_us,
                       t.prefill_us + t.replay_us);
  }
  int32_t chunks = 0;
  for (const PromptChunk& chunk : t.chunks) {
    chunks += chunk.chunks;
    if (chunk.us < 0 || chunk.at_us + chunk.us > whole_us) return "a chunk's time";
  }
  if (t.chunks.size() > kChunksMax || chunks != t.chunks_total) return "the chunks";
  if (t.gaps.size() > kTokenGapsMax ||
      !std::ranges::is_sorted(t.gaps, std::greater<>(), &TokenGap::us)) {
    return "the gaps";
  }
  return {};
}

}  // namespace fathom::sim
