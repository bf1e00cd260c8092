// cluster/terms.h: which terms a process believes. Terms rise by one with each new leader and never
// go back, so that a peer that tells a far higher one is wrong or hostile: a process that believed
// it would obey no true leader any more, and a scheduler would use up the numbers. Pure.
#pragma once

#include <cstdint>

#include "common/types.h"

namespace fathom {

// How far beyond the highest term that it knows a process believes a peer.
inline constexpr uint64_t kTermLeadMax = uint64_t{1} << 20;
// No cluster comes so far; the term after it still has a number.
inline constexpr uint64_t kTermMax = uint64_t{1} << 62;

// `known`: the highest term that the process has stored or believed; 0 where it knows none.
constexpr bool IsCredible(TermId said, TermId known) {
  return said.value <= known.value || said.value - known.value <= kTermLeadMax;
}

// What a term that a scheduler says makes of its message.
enum class TermVerdict {
  kObeyed,       // The highest one; it is the one known now.
  kStale,        // Lower than one known: the message is void, and the sender is to be told.
  kNotCredible,  // Nothing of the message is believed.
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
