#include "scheduler/transport/stream_bytes.h"

#include <google/protobuf/arena.h>

#include <utility>

#include "cluster.pb.h"
#include "cluster/wire.h"
#include "common/check.h"

namespace fathom::scheduler {
namespace {

namespace pb = cluster::v1;

template <class Up>
absl::StatusOr<UpMessage> ParseUp(StreamKind stream, const void* data, size_t size) {
  google::protobuf::Arena arena;
  auto* up = google::protobuf::Arena::CreateMessage<Up>(&arena);
  if (!up->ParseFromArray(data, static_cast<int>(size))) {
    return Invalid("{} message: not a message of cluster.proto", StreamKindName(stream));
  }
  auto message = FromWire(std::move(*up));
  if (!message.ok()) return message.status();
  return std::visit([](auto& which) { return UpMessage(std::move(which)); }, *message);
}

template <class Down>
const Down& FillDown(StreamKind stream, const DownMessage& message,
                     google::protobuf::Arena* arena) {
  auto* down = google::protobuf::Arena::CreateMessage<Down>(arena);
  std::visit(
      [&](const auto& which) {
        if constexpr (requires { ToWire(which, down); }) {
          ToWire(which, down);
        } else {
          FATHOM_CHECK(false, "not a message of {}", StreamKindName(stream));
        }
      },
      message);
  return *down;
}

}  // namespace

absl::StatusOr<UpMessage> UpFromBytes(StreamKind stream, const void* data, size_t size) {
  switch (stream) {
    case StreamKind::kRoute:
      return ParseUp<pb::RouteUp>(stream, data, size);
    case StreamKind::kControl:
      return ParseUp<pb::ControlUp>(stream, data, size);
    case StreamKind::kSteps:
      break;
  }
  return ParseUp<pb::StepsUp>(stream, data, size);
}

const google::protobuf::MessageLite& DownToWire(StreamKind stream, const DownMessage& message,
                                                google::protobuf::Arena* arena) {
  switch (stream) {
    case StreamKind::kRoute:
      return FillDown<pb::RouteDown>(stream, message, arena);
    case StreamKind::kControl:
      return FillDown<pb::ControlDown>(stream, message, arena);
    case StreamKind::kSteps:
      break;
  }
  return FillDown<pb::StepsDown>(stream, message, arena);
}

}  // namespace fathom::scheduler
