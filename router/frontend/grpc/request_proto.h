// router/frontend/grpc/request_proto.h: public messages to plain types and back; no policy. Bytes
// that are not the message are INVALID_ARGUMENT naming the field where that can be told (text that
// is not UTF-8, a field number that this version does not know: proto3 would drop it without a
// word).
#pragma once

#include <string>

#include "common/status.h"
#include "inference.pb.h"
#include "router/api/admission.h"
#include "router/sessions/session.h"
#include "text/chat_template.h"

namespace fathom::router {

// Fills `message` from its serialized form.
absl::Status ParseMessage(const std::string& bytes, google::protobuf::Message* message);
// Maps sorted, so that equal messages give equal bytes.
std::string SerializeDeterministic(const google::protobuf::Message& message);

PublicRequest FromProto(const v1::GenerateRequest& message);
PublicRequest FromProto(const v1::ChatRequest& message);
ChatInput ChatInputOf(const google::protobuf::RepeatedPtrField<v1::ChatMessage>& messages,
                      const std::string& tools_json);

// REQUIRES: not an EndEvent.
v1::GenerateResponse ToProto(const ClientEvent& event);
void ToProto(const SamplingParams& from, v1::Sampling* to);

}  // namespace fathom::router
