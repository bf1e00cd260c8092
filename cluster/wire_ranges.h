// cluster/wire_ranges.h: the only table of the allowed values of cluster.proto: ranges of numbers,
// lengths of strings, counts of lists. A receiver checks a message as a whole before it uses any of
// it, so no peer can make it allocate or compute without a bound. The receiver itself checks what
// depends on its own state (terms, slots in use, the model's vocabulary). Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "common/status.h"

namespace google::protobuf {
class Message;
}  // namespace google::protobuf

namespace fathom {

// The row of one field of cluster.proto. A number has a least and a greatest value (never NaN). A
// string or bytes field has a greatest length. An enumeration may have any value that this build
// knows. The fields of a message have rows of their own. A list also has a greatest number of
// items.
struct WireRange {
  std::string_view field;  // "Submit.deadline_ms"
  double min = 0;
  double max = 0;
  int32_t count_max = 1;  // For a list.
};
std::span<const WireRange> WireRanges();

// INVALID_ARGUMENT for the first value out of its range in a message of cluster.proto or in the
// messages inside it; it names the message, the field, the value and the range. REQUIRES: a message
// of cluster.proto.
absl::Status CheckRanges(const google::protobuf::Message& message);

}  // namespace fathom
