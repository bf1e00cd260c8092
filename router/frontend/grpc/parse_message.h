// router/frontend/grpc/parse_message.h: bytes to a public message. Bytes that are not the message
// are INVALID_ARGUMENT naming the field where that can be told: text that is not UTF-8, a field
// number that this version does not know (proto3 would drop it without a word).
#pragma once

#include <google/protobuf/message.h>

#include <string>

#include "common/status.h"

namespace fathom::router {

// Fills `message` from its serialized form.
absl::Status ParseMessage(const std::string& bytes, google::protobuf::Message* message);

}  // namespace fathom::router
