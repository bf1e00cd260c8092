// cluster/terms.h: which terms a process believes. Terms rise by one with each new leader and never
// fall. A peer with a far higher term is therefore wrong or hostile. If a process believed it, a
// router or worker would obey no true leader any more, and a scheduler would use up the numbers.
// Pure.
#pragma once

#include <cstdint>

#include "common/types.h"

namespace fathom {

// A process believes a term up to this far above the highest one that it knows.
inline constexpr uint64_t kTermLeadMax = uint64_t{1} << 20;
// No cluster reaches this term in practice, so there is always a next term.
inline constexpr uint64_t kTermMax = uint64_t{1} << 62;

// `known` is the highest term that the process has stored or believed; 0: none.
constexpr bool IsCredible(TermId said, TermId known) {
  return said.value <= known.value || said.value - known.value <= kTermLeadMax;
}

// What the receiver does with a message of a scheduler, by the message's term.
enum class TermVerdict {
  kObeyed,       // The highest term; the receiver now knows it.
  kStale,        // Lower than the known term: the message is ignored, and the sender must be told.
  kNotCredible,  // Nothing in the message is believed.
};

// The highest term that a router or a worker has believed. Not thread-safe.
class KnownTerm {
 public:
  TermVerdict Hear(TermId said) {
    if (!IsCredible(said, term_)) return TermVerdict::kNotCredible;
    if (said < term_) return TermVerdict::kStale;
    term_ = said;
    return TermVerdict::kObeyed;
  }
  TermId term() const { return term_; }

 private:
  TermId term_{0};
};

}  // namespace fathom
