// scheduler/transport/stream_bytes.h: converts the messages of transport.h to the bytes of their
// stream and back; cluster/wire.h defines the messages. No gRPC, no state.
#pragma once

#include <cstddef>

#include "common/status.h"
#include "scheduler/transport/transport.h"

namespace google::protobuf {
class Arena;
class MessageLite;
}  // namespace google::protobuf

namespace fathom::scheduler {

// Parses one message that came on `stream`. INVALID_ARGUMENT, with the message's and the field's
// name, if it cannot be parsed or has a value that this build does not know.
absl::StatusOr<UpMessage> UpFromBytes(StreamKind stream, const void* data, size_t size);

// The message of `stream` for `message`, allocated in `arena`. REQUIRES: the stream has such a
// message.
const google::protobuf::MessageLite& DownToWire(StreamKind stream, const DownMessage& message,
                                                google::protobuf::Arena* arena);

}  // namespace fathom::scheduler
