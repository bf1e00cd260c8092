// scheduler/transport/stream_bytes.h: the messages of transport.h as the bytes of the stream that
// carries them, and back; cluster/wire.h has what they mean. No gRPC, no state.
#pragma once

#include <cstddef>

#include "common/status.h"
#include "scheduler/transport/transport.h"

namespace google::protobuf {
class Arena;
class MessageLite;
}  // namespace google::protobuf

namespace fathom::scheduler {

// One message that came up on `stream`. INVALID_ARGUMENT naming the message and field when it
// cannot be read or says what this build does not know.
absl::StatusOr<UpMessage> UpFromBytes(StreamKind stream, const void* data, size_t size);

// The message as it goes down on `stream`; lives in `arena`. REQUIRES: the stream has such a
// message.
const google::protobuf::MessageLite& DownToWire(StreamKind stream, const DownMessage& message,
                                                google::protobuf::Arena* arena);

}  // namespace fathom::scheduler
