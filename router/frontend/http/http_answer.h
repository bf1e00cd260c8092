// router/frontend/http/http_answer.h: the answer to one HTTP request that generates: an exchange
// (http/exchange.h) and a SessionStream (router/sessions/session_stream.h) for each prompt of it.
// It sends a whole answer, or a stream of Server-Sent Events, in the form of one of the APIs
// (answer_form.h).
//
// A refusal is an HTTP status: a stream begins when every prompt was accepted. After that an error
// is an event of the stream, and the events that end an answer are sent only after success. If one
// prompt fails, the others are cancelled.
//
// Back-pressure: a session has one event at a time in this object, which is told as written when
// its bytes are; so an answer holds at most one event of each prompt, besides what a whole answer
// collects.
//
// Thread: any; one mutex guards the state, and it is not held while a session is called. The
// exchange, the sessions and their streams hold the object until the exchange is done.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "http/exchange.h"
#include "router/api/inference_api.h"
#include "router/frontend/http/answer_form.h"
#include "router/frontend/http/http_error.h"
#include "router/frontend/http/openai_request.h"
#include "router/sessions/session_stream.h"

namespace fathom::router {

// How a stream is taken up again: the header Last-Event-ID.
struct LastEvent {
  std::string request_id;
  std::vector<int32_t> positions;  // Of each choice.
};

class HttpAnswer final : public http::ExchangeSink,
                         public std::enable_shared_from_this<HttpAnswer> {
 public:
  // Sends the request to the API, or resumes it if `last` is set. Its id, if several prompts need
  // one, is drawn. REQUIRES: the API outlives the exchange.
  static void Start(std::shared_ptr<http::Exchange> exchange, const InferenceApi* api,
                    const CallContext& call, FormRequest read, std::optional<LastEvent> last);

  void OnWritten(bool ok) override;
  void OnHangUp() override;
  void OnDone() override;

 private:
  // The stream of one prompt.
  class Part final : public SessionStream {
   public:
    Part(Sessions* sessions, std::shared_ptr<HttpAnswer> answer, int prompt)
        : SessionStream(sessions), answer_(std::move(answer)), prompt_(prompt) {}
    void Write(const ClientEvent& event) override;
    void Break() override { answer_->exchange_->Break(); }
    using SessionStream::Cancelled;
    using SessionStream::Closed;
    using SessionStream::Written;

   private:
    const std::shared_ptr<HttpAnswer> answer_;
    const int prompt_;
  };
  using PartPtr = std::shared_ptr<Part>;

  HttpAnswer(std::shared_ptr<http::Exchange> exchange, AnswerParts parts, AnswerForm form,
             bool prompt_list);

  void Launch(const InferenceApi* api, const CallContext& call, OpenAiRequest request,
              const std::optional<LastEvent>& last);
  bool failed() const;

  void OnEvent(int prompt, const ClientEvent& event, std::vector<TokenId> prompt_ids);
  // REQUIRES of the methods below: mutex_ is held.
  std::string Convert(int prompt, const ClientEvent& event, std::vector<TokenId> prompt_ids);
  void TakeEnd(int prompt, const absl::Status& status);
  void Fail(int prompt, const absl::Status& status);
  void Proceed();
  void End();
  std::vector<std::pair<std::string, std::string>> IdHeaders() const;
  // The streams that must be cancelled now; they are told without the lock.
  std::vector<PartPtr> TakeCancels();
  void Release(std::vector<int> prompts, bool ok);

  const std::shared_ptr<http::Exchange> exchange_;
  const AnswerOptions options_;
  const AnswerForm form_;
  const bool prompt_list_;

  mutable std::mutex mutex_;    // Guards all below.
  std::vector<PartPtr> parts_;  // One for each prompt, until OnDone.
  std::vector<bool> started_, ended_;
  const std::unique_ptr<AnswerWriter> answer_;
  std::string pending_;         // Bytes of a stream that wait for the write in flight.
  std::vector<int> owed_;       // The prompts whose event is in pending_.
  std::vector<int> in_flight_;  // The same of the write in flight.
  bool writing_ = false;
  bool begun_ = false;    // The head of a stream was sent.
  bool left_ = false;     // The client left.
  bool cancels_ = false;  // The other streams must be cancelled.
  bool finished_ = false;
  std::chrono::steady_clock::time_point last_bytes_;
  absl::Status failure_;  // The first one.
  int failed_prompt_ = 0;
};

}  // namespace fathom::router
