// scheduler/transport/codec.h: the messages of transport.h as bytes of cluster.proto, and back. No
// gRPC, no state.
#pragma once

#include <cstddef>

#include "common/status.h"
#include "scheduler/transport/transport.h"

namespace google::protobuf {
class Arena;
class MessageLite;
}  // namespace google::protobuf

namespace fathom::scheduler {

// One message that came up on `stream` from `peer`. INVALID_ARGUMENT naming the message and field
// when it cannot be read or says what this build does not know; a Submit that cannot be read is a
// SubmitUnreadable instead, for it harms only itself.
absl::StatusOr<UpMessage> Decode(StreamKind stream, PeerId peer, const void* data, size_t size);

// The message as it goes down on `stream`; lives in `arena`. REQUIRES: the stream has such a
// message.
const google::protobuf::MessageLite& Encode(StreamKind stream, const DownMessage& message,
                                            google::protobuf::Arena* arena);

}  // namespace fathom::scheduler
