// router/frontend/grpc/answer_proto.h: converts the answers of the API (router/api/requests.h) and
// the events of a session (router/sessions/client_events.h) to public messages. No policy.
#pragma once

#include <string>
#include <vector>

#include "inference.pb.h"
#include "router/api/field_limits.h"
#include "router/api/requests.h"
#include "router/sessions/client_events.h"
#include "router/sessions/request_report.h"

namespace fathom::router {

// REQUIRES: `event` is not an EndEvent, which is the status of the call and not a message.
v1::GenerateResponse ToProto(const ClientEvent& event);
v1::Started ToProto(const StartedEvent& event);
v1::TokenizeResponse ToProto(const TokenizeAnswer& answer);
v1::DetokenizeResponse ToProto(const std::string& text);
v1::Model ToProto(const ModelAnswer& answer);
v1::Limits ToProto(const std::vector<FieldLimit>& limits);
v1::ClusterStatus ToProto(const StatusAnswer& answer);
v1::Explanation ToProto(const RequestReport& report);  // explain_proto.cc

}  // namespace fathom::router
