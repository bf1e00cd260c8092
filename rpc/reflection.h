// rpc/reflection.h: answers of the gRPC reflection service, from the descriptors that are linked
// into this program. Pure; the streams are the caller's. Thread: any.
#pragma once

#include <string>
#include <vector>

namespace fathom::rpc {

// Both versions of the service have the same messages.
inline constexpr const char* kReflectionMethods[] = {
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"};

// The bytes of the answer to the bytes of one request. Never fails: what is not known, or no
// request at all, is answered with an error_response. `services`: full names to be listed.
std::string AnswerReflection(const std::string& request, const std::vector<std::string>& services);

}  // namespace fathom::rpc
