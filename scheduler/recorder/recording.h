// scheduler/recorder/recording.h: a recording of the scheduler core: its options and every event
// with its time, as bytes. The core is pure, so a core with these options that is given these
// events takes the same decisions (scheduler/recorder/replay.h).
//
// The bytes: the magic word "fathomrc", then records. A record is three little-endian uint32 (the
// length of the payload, the CRC-32C of these four bytes, the CRC-32C of the payload) and the
// payload: a message of proto/recording.proto, a Header first, then an Event each. A file that ends
// within a record was cut off by the end of its writer and is good up to there; a checksum that is
// wrong is an error, whose message has the offset. The length has a checksum of its own, so that
// the two are told apart. Pure, but for the reader's stream.
#pragma once

#include <cstdint>
#include <istream>
#include <optional>
#include <string>
#include <string_view>

#include "common/status.h"
#include "scheduler/core/scheduler_core.h"

namespace fathom::scheduler {

inline constexpr uint32_t kRecordingFormat = 1;
// Of one record's payload. A message of a stream has at most 64 MiB (cluster/protocol.h).
inline constexpr int64_t kRecordBytesMax = int64_t{128} << 20;

struct RecordingHeader {
  std::string build;  // Of the writer.
  CoreOptions options;
};

struct RecordedEvent {
  TimeUs time_us = 0;
  Event event;
};

// "Submit", "GroupUp", ... by the index in Event.
const char* EventName(size_t kind);

// The magic word and the first record.
std::string EncodeHeader(const RecordingHeader& header);
// Appends the record of one event. RESOURCE_EXHAUSTED: it is larger than kRecordBytesMax, and
// nothing was appended.
absl::Status EncodeEvent(const Event& event, TimeUs time_us, std::string* out);

// Reads a recording from its beginning. Errors of all calls: INVALID_ARGUMENT for what is no
// recording, FAILED_PRECONDITION for one that this build cannot replay, DATA_LOSS with the offset
// for one that is damaged; after an error the reader is of no more use.
class RecordingReader {
 public:
  // `in` must outlive it and is at its beginning.
  explicit RecordingReader(std::istream* in) : in_(*in) {}

  // First, once. DATA_LOSS also for a file that was cut off before its first event could be.
  absl::StatusOr<RecordingHeader> Header();
  // nullopt: no whole record follows. Times never go back.
  absl::StatusOr<std::optional<RecordedEvent>> Next();

  // Where the last whole record ended.
  int64_t offset() const { return offset_; }
  // After Next gave nullopt: the bytes behind offset(), of a record that was cut off. 0: none was.
  int64_t cut_bytes() const { return cut_bytes_; }

 private:
  // Reads the next record's payload. False: none, or not whole.
  absl::StatusOr<bool> ReadRecord(std::string* payload);
  // False: the stream ends before; what is there counts as cut.
  bool ReadBytes(char* to, int64_t bytes);
  absl::Status Damaged(std::string_view what) const;

  std::istream& in_;
  int64_t offset_ = 0;
  int64_t cut_bytes_ = 0;
  TimeUs last_us_ = INT64_MIN;
  std::string payload_;
};

}  // namespace fathom::scheduler
