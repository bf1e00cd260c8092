#include "scheduler/recorder/recording.h"

#include <algorithm>
#include <array>
#include <bit>
#include <boost/crc.hpp>
#include <cstring>
#include <iterator>
#include <utility>
#include <variant>

#include "common/check.h"
#include "recording.pb.h"
#include "scheduler/core/policy.h"
#include "scheduler/recorder/event_wire.h"

namespace fathom::scheduler {

namespace pb = recording::v1;

namespace {

constexpr std::string_view kMagic = "fathomrc";
constexpr size_t kPrefixBytes = 12;
static_assert(std::endian::native == std::endian::little);

uint32_t Crc32c(std::string_view bytes) {
  boost::crc_optimal<32, 0x1EDC6F41, 0xFFFFFFFF, 0xFFFFFFFF, true, true> crc;
  crc.process_bytes(bytes.data(), bytes.size());
  return crc.checksum();
}

std::string_view BytesOfWord(const uint32_t& word) {
  return {reinterpret_cast<const char*>(&word), sizeof(word)};
}

absl::Status AppendRecord(const google::protobuf::Message& message, std::string* out) {
  const size_t bytes = message.ByteSizeLong();
  if (bytes > static_cast<size_t>(kRecordBytesMax)) {
    return Exhausted("an event of {} bytes, a recording takes {}", bytes, kRecordBytesMax);
  }
  const size_t begin = out->size();
  out->resize(begin + kPrefixBytes + bytes);
  char* const payload = out->data() + begin + kPrefixBytes;
  message.SerializeWithCachedSizesToArray(reinterpret_cast<uint8_t*>(payload));
  std::array<uint32_t, 3> prefix = {static_cast<uint32_t>(bytes)};
  prefix[1] = Crc32c(BytesOfWord(prefix[0]));
  prefix[2] = Crc32c({payload, bytes});
  static_assert(sizeof(prefix) == kPrefixBytes);
  std::memcpy(out->data() + begin, prefix.data(), kPrefixBytes);
  return absl::OkStatus();
}

void OptionsToWire(const CoreOptions& from, pb::CoreOptions* to) {
  to->set_policy(from.policy);
  to->set_waiting_requests_max(from.waiting_requests_max);
  to->set_waiting_tokens_max(from.waiting_tokens_max);
  to->set_session_memory_bytes_max(from.session_memory_bytes_max);
  to->set_record_keep_us(from.record_keep_us);
  to->set_router_grace_us(from.router_grace_us);
  to->set_model_wait_us(from.model_wait_us);
  to->set_run_ahead_max(from.run_ahead_max);
  to->set_sequences_max(from.sequences_max);
  to->set_prefix_caching(from.prefix_caching);
  to->set_prefixes_across_tenants(from.prefixes_across_tenants);
  to->set_overtakes_max(from.overtakes_max);
}

CoreOptions OptionsFromWire(const pb::CoreOptions& from) {
  return {.policy = from.policy(),
          .waiting_requests_max = from.waiting_requests_max(),
          .waiting_tokens_max = from.waiting_tokens_max(),
          .session_memory_bytes_max = from.session_memory_bytes_max(),
          .record_keep_us = from.record_keep_us(),
          .router_grace_us = from.router_grace_us(),
          .model_wait_us = from.model_wait_us(),
          .run_ahead_max = from.run_ahead_max(),
          .sequences_max = from.sequences_max(),
          .prefix_caching = from.prefix_caching(),
          .prefixes_across_tenants = from.prefixes_across_tenants(),
          .overtakes_max = from.overtakes_max()};
}

}  // namespace

const char* EventName(size_t kind) {
  constexpr const char* kNames[] = {"Submit",         "Suspend",   "Close",    "RouterLost",
                                    "GroupUp",        "GroupLost", "StepDone", "Tick",
                                    "TenantsChanged", "GroupDrain"};
  static_assert(std::size(kNames) == std::variant_size_v<Event>);
  return kNames[kind];
}

std::string EncodeHeader(const RecordingHeader& header) {
  pb::Header message;
  message.set_format(kRecordingFormat);
  message.set_build(header.build);
  OptionsToWire(header.options, message.mutable_options());
  std::string out(kMagic);
  const absl::Status status = AppendRecord(message, &out);
  FATHOM_CHECK(status.ok(), "{}", Message(status));
  return out;
}

absl::Status EncodeEvent(const Event& event, TimeUs time_us, std::string* out) {
  pb::Event message;
  message.set_time_us(time_us);
  EventToWire(event, &message);
  return AppendRecord(message, out);
}

absl::Status RecordingReader::Damaged(std::string_view what) const {
  return DataLoss("the recording is damaged at offset {}: {}", offset_, what);
}

bool RecordingReader::ReadBytes(char* to, int64_t bytes) {
  in_.read(to, bytes);
  cut_bytes_ += in_.gcount();
  return in_.gcount() == bytes;
}

absl::StatusOr<bool> RecordingReader::ReadRecord(std::string* payload) {
  cut_bytes_ = 0;
  std::array<uint32_t, 3> prefix{};
  if (!ReadBytes(reinterpret_cast<char*>(prefix.data()), kPrefixBytes)) return false;
  const auto [bytes, bytes_crc, payload_crc] = prefix;
  if (Crc32c(BytesOfWord(bytes)) != bytes_crc) return Damaged("wrong checksum of a length");
  if (bytes > kRecordBytesMax) {
    return Damaged(fmt::format("a record of {} bytes, the limit is {}", bytes, kRecordBytesMax));
  }
  payload->resize(bytes);
  if (!ReadBytes(payload->data(), bytes)) return false;
  if (Crc32c(*payload) != payload_crc) return Damaged("wrong checksum of a record");
  cut_bytes_ = 0;
  return true;
}

absl::StatusOr<RecordingHeader> RecordingReader::Header() {
  std::string magic(kMagic.size(), '\0');
  if (!ReadBytes(magic.data(), std::ssize(magic))) return Damaged("it ends within its header");
  if (magic != kMagic) {
    return Invalid("not a recording; give a file that fathom-scheduler --record-events wrote");
  }
  offset_ = std::ssize(magic);
  FATHOM_ASSIGN_OR_RETURN(const bool whole, ReadRecord(&payload_));
  if (!whole) return Damaged("it ends within its header");
  pb::Header message;
  if (!message.ParseFromString(payload_)) return Damaged("the header cannot be read");
  if (message.format() != kRecordingFormat) {
    return FailedPrecondition(
        "a recording of format {} (build {}); this build reads format {}, so use the build that "
        "wrote it",
        message.format(), message.build(), kRecordingFormat);
  }
  RecordingHeader header{message.build(), OptionsFromWire(message.options())};
  const auto known = [&](const PolicyRow& row) { return row.name == header.options.policy; };
  if (std::ranges::none_of(Policies(), known)) {
    return FailedPrecondition(
        "the recording's policy is '{}', which this build does not know; use build {}",
        header.options.policy, header.build);
  }
  offset_ += static_cast<int64_t>(kPrefixBytes + payload_.size());
  return header;
}

absl::StatusOr<std::optional<RecordedEvent>> RecordingReader::Next() {
  FATHOM_ASSIGN_OR_RETURN(const bool whole, ReadRecord(&payload_));
  if (!whole) return std::nullopt;
  pb::Event message;
  if (!message.ParseFromString(payload_)) return Damaged("an event cannot be read");
  if (message.time_us() < last_us_) {
    return Damaged(fmt::format("time goes back from {} to {} us", last_us_, message.time_us()));
  }
  last_us_ = message.time_us();
  absl::StatusOr<Event> event = EventFromWire(std::move(message));
  if (!event.ok()) return Damaged(Message(event.status()));
  offset_ += static_cast<int64_t>(kPrefixBytes + payload_.size());
  return RecordedEvent{last_us_, *std::move(event)};
}

}  // namespace fathom::scheduler
