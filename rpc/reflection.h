// rpc/reflection.h: the answers of the gRPC reflection service, made from the descriptors that are
// linked into this program. Pure; the caller owns the streams. Thread: any.
#pragma once

#include <string>
#include <vector>

namespace fathom::rpc {

// Both versions of the service have the same messages.
inline constexpr const char* kReflectionMethods[] = {
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"};

// The bytes of the answer to the bytes of one request. Never fails: unknown names and invalid
// requests are answered with an error_response. `services`: the full names to list.
std::string AnswerReflection(const std::string& request, const std::vector<std::string>& services);

}  // namespace fathom::rpc
