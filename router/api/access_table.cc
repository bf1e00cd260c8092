#include "router/api/access_table.h"

#include <algorithm>

namespace fathom::router {
namespace {

constexpr AccessRow kRows[] = {
    // ---- HTTP
    {"GET /", Access::kOpen},  // The page itself says nothing of the cluster; it asks for a key.
    {"GET /cluster/requests", Access::kAdmin},
    {"GET /cluster/status", Access::kAdmin},
    {"GET /health", Access::kOpen},
    {"GET /health/live", Access::kOpen},
    {"GET /health/progress", Access::kOpen},
    {"GET /health/ready", Access::kOpen},
    {"GET /livez", Access::kOpen},
    {"GET /metrics", Access::kMetrics},
    {"GET /version", Access::kAnyKey},
    {"GET /v1/models", Access::kInfer},
    {"GET /v1/models/", Access::kInfer},
    {"POST /detokenize", Access::kInfer},
    {"POST /tokenize", Access::kInfer},
    {"POST /v1/chat/completions", Access::kInfer},
    {"POST /v1/completions", Access::kInfer},
    {"POST /v1/messages", Access::kInfer},
    {"POST /v1/messages/count_tokens", Access::kInfer},
    {"POST /v1/responses", Access::kInfer},
    // ---- gRPC
    {"/fathom.v1.Admin/GetStatus", Access::kAdmin},
    {"/fathom.v1.Inference/Chat", Access::kInfer},
    {"/fathom.v1.Inference/Detokenize", Access::kInfer},
    {"/fathom.v1.Inference/Explain", Access::kInfer},
    {"/fathom.v1.Inference/Generate", Access::kInfer},
    {"/fathom.v1.Inference/GetLimits", Access::kInfer},
    {"/fathom.v1.Inference/GetModel", Access::kInfer},
    {"/fathom.v1.Inference/Resume", Access::kInfer},
    {"/fathom.v1.Inference/Tokenize", Access::kInfer},
    {"/fathom.v1.Inference/Validate", Access::kInfer},
    {"/grpc.health.v1.Health/Check", Access::kOpen},
    {"/grpc.health.v1.Health/Watch", Access::kAnyKey},
    {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Access::kAnyKey},
    {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Access::kAnyKey},
};

}  // namespace

std::span<const AccessRow> AccessTable() { return kRows; }

Access AccessOf(std::string_view route) {
  const auto* const row = std::ranges::find(kRows, route, &AccessRow::route);
  return row == std::end(kRows) ? Access::kNobody : row->access;
}

}  // namespace fathom::router
