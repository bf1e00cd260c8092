// router/frontend/grpc/parse_message.h: parses a public message.
#pragma once

#include <google/protobuf/message.h>

#include <string>

#include "common/status.h"

namespace fathom::router {

// Fills `message` from its serialized form. INVALID_ARGUMENT: the bytes are not such a message. The
// error names the field if a text is not UTF-8 or if this version does not know the field. proto3
// alone would ignore an unknown field, and the client would get something that it did not ask for.
absl::Status ParseMessage(const std::string& bytes, google::protobuf::Message* message);

}  // namespace fathom::router
