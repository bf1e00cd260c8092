// router/frontend/grpc/handler.h: what each public call does, from its message to its answer,
// without gRPC's machinery. Thread: any; const besides the sessions it makes.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/cancel.h"
#include "common/status.h"
#include "inference.pb.h"
#include "router/api/admission.h"
#include "router/frontend/grpc/service.h"

namespace fathom::router {

// Another router takes the request at once; the delay only keeps clients from coming in one moment.
inline constexpr int64_t kDrainingRetryMs = 200;

// What a call brings beside its message.
struct CallInfo {
  int64_t time_left_ms = 0;  // Until the call's own deadline, when it came; 0: it has none.
  int64_t waited_ms = 0;     // Since it came.
  CancelFn cancelled = {};   // Whether its client has gone.
};

class RouterService::Handler {
 public:
  explicit Handler(ServiceParts parts) : parts_(std::move(parts)) {}

  const ServiceParts& parts() const { return parts_; }
  void set_draining() { draining_ = true; }

  absl::StatusOr<AdmittedRequest> Generate(const std::string& bytes, const CallInfo& call) const;
  absl::StatusOr<AdmittedRequest> Chat(const std::string& bytes, const CallInfo& call) const;
  struct ResumePoint {
    SessionKey key;
    std::vector<int32_t> next_positions;
  };
  absl::StatusOr<ResumePoint> Resume(const std::string& bytes) const;

  absl::Status Tokenize(const std::string& bytes, const CallInfo& call,
                        v1::TokenizeResponse* response) const;
  absl::Status Detokenize(const std::string& bytes, const CallInfo& call,
                          v1::DetokenizeResponse* response) const;
  absl::Status GetModel(const std::string& bytes, const CallInfo& call, v1::Model* response) const;
  absl::Status GetLimits(const std::string& bytes, const CallInfo& call,
                         v1::Limits* response) const;
  absl::Status GetStatus(const std::string& bytes, const CallInfo& call,
                         v1::ClusterStatus* response) const;

  // OK: a request would be answered now.
  absl::Status Ready() const;

 private:
  absl::StatusOr<ModelFacts> Facts() const;
  absl::StatusOr<std::vector<TokenId>> PromptOf(const v1::GenerateRequest& request,
                                                const ModelFacts& facts,
                                                const CallInfo& call) const;
  absl::StatusOr<std::vector<TokenId>> Encode(const std::string& text,
                                              const EncodeOptions& options) const;
  absl::StatusOr<RenderedChat> Render(ChatInput input, const RenderOptions& options) const;

  const ServiceParts parts_;
  std::atomic<bool> draining_{false};
  mutable std::atomic<uint64_t> refused_{0};  // While draining; makes retry delays differ.
};

}  // namespace fathom::router
