// scheduler/recorder/recording.h: a recording of the scheduler core: its options and every event
// with its time, as bytes. The core is pure, so a core with the same options and the same events
// takes the same decisions (scheduler/recorder/replay.h).
//
// The bytes are the magic word "fathomrc" and then records. A record is three little-endian uint32
// (the length of the payload, the CRC-32C of these four bytes, the CRC-32C of the payload) and the
// payload, which is a message of proto/recording.proto: first a Header, then one Event in each
// record. A file that ends inside a record was cut off when its writer ended; it is valid up to
// that record. A wrong checksum is an error, and its message has the offset. The length has its own
// checksum, so that a damaged length is not mistaken for a cut-off file. Pure, except for the
// reader's stream.
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
// The limit of a record's payload. A message of a stream has at most 64 MiB (cluster/protocol.h).
inline constexpr int64_t kRecordBytesMax = int64_t{128} << 20;

struct RecordingHeader {
  std::string build;  // The build of the writer.
  CoreOptions options;
};

struct RecordedEvent {
  TimeUs time_us = 0;
  Event event;
};

// "Submit", "GroupUp", ..., by the index in Event.
const char* EventName(size_t kind);

// The magic word and the first record.
std::string EncodeHeader(const RecordingHeader& header);
// Appends the record of one event. RESOURCE_EXHAUSTED: the record is larger than kRecordBytesMax,
// and nothing was appended.
absl::Status EncodeEvent(const Event& event, TimeUs time_us, std::string* out);

// Reads a recording from its beginning. All calls may return INVALID_ARGUMENT (the bytes are no
// recording), FAILED_PRECONDITION (this build cannot replay the recording) or DATA_LOSS with the
// offset (it is damaged). After an error the reader must not be used.
class RecordingReader {
 public:
  // `in` must outlive the reader and be at its beginning.
  explicit RecordingReader(std::istream* in) : in_(*in) {}

  // Called first and once. DATA_LOSS also if the file was cut off before its first event.
  absl::StatusOr<RecordingHeader> Header();
  // nullopt: no whole record follows. The times never decrease.
  absl::StatusOr<std::optional<RecordedEvent>> Next();

  // The offset at which the last whole record ended.
  int64_t offset() const { return offset_; }
  // After Next returned nullopt: the bytes after offset(), which belong to a record that was cut
  // off; 0: none.
  int64_t cut_bytes() const { return cut_bytes_; }

 private:
  // Reads the payload of the next record. Returns false if there is none or if it is not whole.
  absl::StatusOr<bool> ReadRecord(std::string* payload);
  // Returns false if the stream ends before `bytes` bytes; the bytes that exist count as cut off.
  bool ReadBytes(char* to, int64_t bytes);
  absl::Status Damaged(std::string_view what) const;

  std::istream& in_;
  int64_t offset_ = 0;
  int64_t cut_bytes_ = 0;
  TimeUs last_us_ = INT64_MIN;
  std::string payload_;
};

}  // namespace fathom::scheduler
