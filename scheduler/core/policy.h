// scheduler/core/policy.h: who is admitted next and who is suspended when blocks run out. Pure.
// A policy is a row of the table in policy.cc; adding one touches that file and its test only.
#pragma once

#include <compare>
#include <cstdint>
#include <span>
#include <string_view>

#include "common/types.h"

namespace fathom::scheduler {

// What a policy may look at.
struct SequenceFacts {
  uint64_t number = 0;    // Unique; grows with each new sequence.
  TimeUs arrival_us = 0;  // First acceptance.
  bool resumed = false;   // Was seated before, here or under another leader.
  int32_t prompt_tokens = 0;
  int32_t max_tokens = 0;        // Of the request.
  int32_t generated_tokens = 0;  // So far.
};

// Ascending: the least is first. `number` makes keys of different sequences differ.
struct OrderKey {
  int64_t rank = 0;
  int64_t value = 0;
  uint64_t number = 0;
  auto operator<=>(const OrderKey&) const = default;
};

struct Policy {
  std::string_view name;
  // The waiting sequence with the least key is admitted next; nobody overtakes it for want of room.
  // Resumed sequences must come before the others: they are exempt from the queue's limits.
  OrderKey (*admit)(const SequenceFacts& facts);
  // When blocks run out, the running sequence with the greatest key is suspended. The key must not
  // change over a sequence's life: then the least one is never disturbed, and every sequence ends.
  OrderKey (*keep)(const SequenceFacts& facts);
};

// All rows, the default first.
std::span<const Policy> Policies();

// nullptr: no such row.
const Policy* FindPolicy(std::string_view name);

}  // namespace fathom::scheduler
