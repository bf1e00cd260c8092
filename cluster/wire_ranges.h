// cluster/wire_ranges.h: the one table of what a value of cluster.proto may be: ranges of numbers,
// lengths of strings, counts of lists. The receiver of a message checks it as a whole before
// anything of it is used, so that no peer can make it allocate or compute without a bound. What
// only the receiver's own state decides (terms, slots in use, the model's vocabulary) is checked
// there. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "common/status.h"

namespace google::protobuf {
class Message;
}  // namespace google::protobuf

namespace fathom {

// Of one field of cluster.proto. Of a number: its least and greatest value (never NaN). Of a string
// or bytes: the greatest length. Of an enumeration: any value that this build knows. Of a message:
// its fields have rows of their own. Of a list: also how many items it may have.
struct WireRange {
  std::string_view field;  // "Submit.deadline_ms"
  double min = 0;
  double max = 0;
  int32_t count_max = 1;  // Of a list.
};
std::span<const WireRange> WireRanges();

// INVALID_ARGUMENT naming message and field, the value and its range, for the first value of a
// message of cluster.proto, or of the messages in it, that is out of its range.
// REQUIRES: a message of cluster.proto.
absl::Status CheckRanges(const google::protobuf::Message& message);

}  // namespace fathom
