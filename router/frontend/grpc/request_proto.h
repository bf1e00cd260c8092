// router/frontend/grpc/request_proto.h: converts public messages to the requests of the API
// (router/api/requests.h). No policy. Long texts are moved, not copied.
#pragma once

#include "inference.pb.h"
#include "router/api/requests.h"

namespace fathom::router {

GenerateRequest FromProto(v1::GenerateRequest&& message);
GenerateRequest FromProto(v1::ChatRequest&& message);
GenerateRequest FromProto(v1::ValidateRequest&& message);
ResumeRequest FromProto(const v1::ResumeRequest& message);
TokenizeRequest FromProto(v1::TokenizeRequest&& message);
DetokenizeRequest FromProto(const v1::DetokenizeRequest& message);

}  // namespace fathom::router
