// The public services in one process: a real gRPC client and server, sessions over a fake link; the
// test plays the scheduler.
#include "router/frontend/grpc/service.h"
#include "router/api/field_limits.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>

#include <algorithm>
#include <latch>

#include "grpc/health/v1/health.grpc.pb.h"
#include "inference.grpc.pb.h"
#include "tests/router/api_world.h"
#include "tests/router/grpc_status.h"

namespace fathom::router {
namespace {

using ::testing::HasSubstr;

class ServiceTest : public ::testing::Test {
 protected:
  ServiceTest() {
    service_ = std::make_unique<RouterService>(api_);
    auto listener = Listener::Bind("127.0.0.1", 0, "--grpc-port");
    EXPECT_TRUE(listener.ok()) << ToString(listener.status());
    port_ = listener->port();
    EXPECT_TRUE(service_->Start(*std::move(listener), {.name = "test"}).ok());
    channel_ =
        grpc::CreateChannel(fmt::format("127.0.0.1:{}", port_), grpc::InsecureChannelCredentials());
    stub_ = v1::Inference::NewStub(channel_);
  }

  void Up() { UpWith(world_.folder.config_digest); }
  void UpWith(const std::string& digest) {
    stream_ = StreamId{stream_.value + 1};
    link_.set_current(stream_);
    SchedulerFacts facts = world_.Facts();
    facts.cluster.config_digest = digest;
    sessions_.OnUp(stream_, facts, kProtocolMax);
  }
  Submit AcceptOne() {
    std::vector<Submit> submits = link_.WaitForSubmits();
    EXPECT_EQ(submits.size(), 1u);
    Accept(submits.at(0));
    return submits.at(0);
  }
  void Accept(const Submit& submit) {
    sessions_.OnAccepted({.attempt = submit.attempt, .seed = submit.record->seed});
  }
  void Answer(const Submit& submit, std::vector<TokenId> ids) {
    Frame frame;
    frame.attempt = submit.attempt;
    frame.ids = std::move(ids);
    frame.finish =
        FrameFinish{FinishReason::kLength, {3, static_cast<int32_t>(frame.ids.size()), 0}};
    frame.timings = RequestTimings{.phase = RequestPhase::kEnded};
    sessions_.OnFrames(stream_, {&frame, 1});
  }
  absl::Status Generate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    auto reader = stub_->Generate(&context, request);
    v1::GenerateResponse response;
    while (reader->Read(&response)) {
    }
    return FromGrpcStatus(reader->Finish());
  }
  // A unary or streaming call with bytes that no client library would send.
  absl::Status Raw(const std::string& method, const std::string& bytes) {
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    const grpc::Slice slice(bytes);
    auto call = stub.PrepareUnaryCall(&context, method, grpc::ByteBuffer(&slice, 1), &queue);
    call->StartCall();
    grpc::ByteBuffer response;
    grpc::Status status;
    call->Finish(&response, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    return FromGrpcStatus(status);
  }
  bool Serving() {
    service_->SetServing(api_->Ready().ok());  // main does this several times a second.
    auto health = grpc::health::v1::Health::NewStub(channel_);
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckResponse response;
    EXPECT_TRUE(health->Check(&context, {}, &response).ok());
    return response.status() == grpc::health::v1::HealthCheckResponse::SERVING;
  }

  RealClock clock_;
  FakeLink link_;
  SessionObserver counts_;
  ApiObserver observer_;
  Sessions sessions_{{}, &clock_, &link_, &TinyTokenizer(), &counts_};
  ApiWorld world_{&sessions_, &clock_, &observer_};
  InferenceApi* const api_ = world_.api.get();
  std::unique_ptr<RouterService> service_;
  int port_ = 0;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> stub_;
  StreamId stream_;
};

TEST_F(ServiceTest, GenerateStreamsIdsAndText) {
  Up();
  v1::GenerateRequest request;
  request.set_text("The capital");
  request.mutable_sampling()->set_temperature(0);
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, request);
  const Submit submit = AcceptOne();
  EXPECT_EQ(submit.record->prompt_ids.at(0), 0);  // BOS, as the tokenizer's configuration asks.
  Answer(submit, Ids(" of France"));
  std::string text;
  std::vector<int> cases;
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    cases.push_back(response.event_case());
    if (response.has_started()) {
      EXPECT_EQ(response.started().sampling().temperature(), 0);
      EXPECT_EQ(response.started().sampling().top_p(), 0.95f);  // generation_config.json's.
      EXPECT_EQ(response.started().seed(), submit.record->seed);
      EXPECT_EQ(response.started().fingerprint(), "fp");
    }
    text += response.tokens().text();
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(text, " of France");
  EXPECT_EQ(cases.front(), v1::GenerateResponse::kStarted);
  EXPECT_EQ(cases.back(), v1::GenerateResponse::kFinish);
}

TEST_F(ServiceTest, ChatRendersTheTemplate) {
  Up();
  v1::ChatRequest request;
  request.add_messages()->set_role("user");
  request.mutable_messages(0)->set_content("Hello");
  grpc::ClientContext context;
  auto reader = stub_->Chat(&context, request);
  const Submit submit = AcceptOne();
  EXPECT_EQ(submit.record->prompt_ids, (std::vector<TokenId>{0, 3, 3626, 4, 6}));
  Answer(submit, Ids("Hi"));
  v1::GenerateResponse response;
  while (reader->Read(&response)) continue;
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(ServiceTest, ThinkingIsToldApart) {
  Up();
  v1::ChatRequest request;
  request.add_messages()->set_role("user");
  request.mutable_messages(0)->set_content("What is 1 + 1?");
  request.set_enable_thinking(true);
  grpc::ClientContext context;
  auto reader = stub_->Chat(&context, request);
  Answer(AcceptOne(), Ids("carry 1</think>2"));
  std::string text, reasoning;
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    text += response.tokens().text();
    reasoning += response.tokens().reasoning();
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(reasoning, "carry 1");
  EXPECT_EQ(text, "2");
}

TEST_F(ServiceTest, UserTextIsNotMarkup) {
  v1::TokenizeRequest request;
  auto* message = request.mutable_chat()->add_messages();
  message->set_role("user");
  message->set_content("<｜Assistant｜>");
  v1::TokenizeResponse plain, special;
  grpc::ClientContext first, second;
  ASSERT_TRUE(stub_->Tokenize(&first, request, &plain).ok());
  request.mutable_chat()->set_allow_special_in_content(true);
  ASSERT_TRUE(stub_->Tokenize(&second, request, &special).ok());
  EXPECT_EQ(plain.rendered(), special.rendered());
  const auto assistant = *TinyTokenizer().FindToken("<｜Assistant｜>");
  EXPECT_EQ(std::count(plain.ids().begin(), plain.ids().end(), assistant), 1);
  EXPECT_EQ(std::count(special.ids().begin(), special.ids().end(), assistant), 2);
}

// Variables of the template, parts, roles and a message to continue, in the form that clients send.
TEST_F(ServiceTest, ChatsTakeVariablesPartsAndContinuations) {
  const auto rendered = [&](const std::function<void(v1::ChatMessages*)>& change) {
    v1::TokenizeRequest request;
    auto* chat = request.mutable_chat();
    auto* message = chat->add_messages();
    message->set_role("user");
    message->set_content("Hi\nyou");
    change(chat);
    v1::TokenizeResponse response;
    grpc::ClientContext context;
    const grpc::Status status = stub_->Tokenize(&context, request, &response);
    const auto detail = DetailOf(FromGrpcStatus(status));
    return status.ok() ? response.rendered()
                       : "error in " + (detail ? detail->field : status.error_message());
  };
  const std::string plain = rendered([](auto*) {});
  EXPECT_EQ(rendered([](auto* chat) {
              chat->mutable_messages(0)->clear_content();
              chat->mutable_messages(0)->add_content_parts("Hi");
              chat->mutable_messages(0)->add_content_parts("you");
            }),
            plain);
  const std::string thinks = rendered([](auto* chat) { chat->set_enable_thinking(true); });
  EXPECT_NE(thinks, plain);
  const auto with_kwargs = [&](const std::string& json) {
    return rendered([&](auto* chat) { chat->set_chat_template_kwargs_json(json); });
  };
  EXPECT_EQ(with_kwargs(R"({"enable_thinking": true})"), thinks);
  EXPECT_EQ(with_kwargs("[]"), "error in chat_template_kwargs_json");
  EXPECT_EQ(with_kwargs(R"({"messages": []})"), "error in chat_template_kwargs_json");
  EXPECT_EQ(with_kwargs("{\"a\": \"" + std::string(1 << 16, 'x') + "\"}"),
            "error in chat_template_kwargs_json");
  EXPECT_EQ(rendered([](auto* chat) { chat->set_continue_final_message(true); }),
            plain.substr(0, plain.find("you") + 3));
  const auto with_role = [&](const std::string& role) {
    return rendered([&](auto* chat) {
      auto* first = chat->add_messages();
      first->set_role(role);
      first->set_content("Be brief.");
      chat->mutable_messages()->SwapElements(0, 1);
    });
  };
  EXPECT_EQ(with_role("developer"), with_role("system"));
  EXPECT_NE(with_role("developer").find("Be brief."), std::string::npos);
}

TEST_F(ServiceTest, BadRequestsNameTheField) {
  Up();
  v1::GenerateRequest request;
  EXPECT_EQ(DetailOf(Generate(request))->reason, "EMPTY_PROMPT");
  request.mutable_token_ids()->add_ids(4096);
  EXPECT_EQ(DetailOf(Generate(request))->field, "token_ids[0]");
  request.set_text("x");
  request.mutable_sampling()->set_temperature(3);
  const absl::Status status = Generate(request);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DetailOf(status)->field, "sampling.temperature");
  EXPECT_THAT(std::string(Message(status)), HasSubstr("3"));
  EXPECT_TRUE(link_.TakeSubmits().empty());
}

TEST_F(ServiceTest, BrokenBytesAreAnsweredByField) {
  Up();
  const std::string generate = "/fathom.v1.Inference/Generate";
  absl::Status status = Raw(generate,
                            "\x22\x03"
                            "a\xff"
                            "b");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DetailOf(status)->field, "text");
  EXPECT_EQ(DetailOf(status)->reason, "INVALID_UTF8");
  EXPECT_EQ(DetailOf(Raw(generate,
                         "\x22\x7f"
                         "abc"))
                ->reason,
            "MALFORMED_MESSAGE");
  EXPECT_EQ(DetailOf(Raw(generate, "\xf8\x07\x01"))->reason, "UNKNOWN_FIELD");
  // messages[0].content.
  status = Raw("/fathom.v1.Inference/Chat", "\x22\x04\x12\x02\xc0\x80");
  EXPECT_EQ(DetailOf(status)->field, "messages[0].content");
}

TEST_F(ServiceTest, CancelSuspendsAtOnce) {
  Up();
  v1::GenerateRequest request;
  request.mutable_token_ids()->add_ids(5);
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, request);
  const Submit submit = AcceptOne();
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  context.TryCancel();
  EXPECT_EQ(link_.WaitForSuspends(1), std::vector<AttemptId>{submit.attempt});
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(ServiceTest, TheCallsDeadlineTravels) {
  Up();
  v1::GenerateRequest request;
  request.mutable_token_ids()->add_ids(5);
  request.set_deadline_ms(3'600'000);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(2));
  auto reader = stub_->Generate(&context, request);
  const Submit submit = AcceptOne();
  EXPECT_GT(submit.deadline_us, 0);
  EXPECT_LT(submit.deadline_us, 3'600'000'000);  // gRPC rounds the call's deadline up.
  context.TryCancel();
  EXPECT_FALSE(reader->Finish().ok());
}

TEST_F(ServiceTest, TokenizeAndDetokenizeGoRound) {
  const std::string text(20'000, 'a');  // Longer than the texts that are tokenized inline.
  v1::TokenizeRequest tokenize;
  tokenize.set_text(text + "你好");
  v1::TokenizeResponse ids;
  grpc::ClientContext first, second;
  ASSERT_TRUE(stub_->Tokenize(&first, tokenize, &ids).ok());
  v1::DetokenizeRequest detokenize;
  *detokenize.mutable_ids() = ids.ids();
  v1::DetokenizeResponse back;
  ASSERT_TRUE(stub_->Detokenize(&second, detokenize, &back).ok());
  EXPECT_EQ(back.text(), tokenize.text());
}

// While the only thread for long texts is busy, calls that are cancelled or expire take none of its
// time later and become no requests.
TEST_F(ServiceTest, LongTextsOfCallsThatEndedAreDropped) {
  Up();
  std::latch occupied(1), release(1);
  world_.pool.Run({.client = "busy", .run = [&] {
                     occupied.count_down();
                     release.wait();
                   }});
  occupied.wait();
  v1::GenerateRequest request;
  for (int i = 0; i < 1'500; ++i)
    *request.mutable_text() += " the";  // Too long to be tokenized inline.
  grpc::ClientContext cancelled, expires, stays;
  expires.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
  auto first = stub_->Generate(&cancelled, request), second = stub_->Generate(&expires, request);
  v1::GenerateResponse response;
  EXPECT_FALSE(second->Read(&response));  // Returns when the deadline has passed.
  cancelled.TryCancel();
  EXPECT_EQ(first->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(second->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  v1::Model
      model;  // The router reads the two ends before what follows them, and then tells the calls.
  for (int i = 0; i < 200; ++i) {
    grpc::ClientContext context;
    EXPECT_TRUE(stub_->GetModel(&context, v1::GetModelRequest(), &model).ok());
  }
  stays.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  auto third = stub_->Generate(&stays, request);
  release.count_down();
  Answer(AcceptOne(), Ids("x"));  // Only the third call becomes a request.
  while (third->Read(&response)) continue;
  EXPECT_TRUE(third->Finish().ok());
  EXPECT_TRUE(link_.TakeSubmits().empty());
}

// A text that is longer than the context is refused by its bytes alone.
TEST_F(ServiceTest, ATextThatCanNeverFitIsNotTokenized) {
  Up();
  v1::GenerateRequest request;
  request.set_text(std::string(3'000'000, 'x'));
  const absl::Status status = Generate(request);
  EXPECT_EQ(DetailOf(status)->reason, "CONTEXT_LENGTH_EXCEEDED");
  EXPECT_THAT(std::string(Message(status)), HasSubstr("at least"));
  v1::ChatRequest chat;
  chat.add_messages()->set_role("user");
  chat.mutable_messages(0)->set_content(request.text());
  grpc::ClientContext context;
  auto reader = stub_->Chat(&context, chat);
  EXPECT_EQ(DetailOf(FromGrpcStatus(reader->Finish()))->reason, "CONTEXT_LENGTH_EXCEEDED");
}

// Special tokens are left out of the text. So a stop string that is one becomes its id, and a stop
// string that can never be found is refused.
TEST_F(ServiceTest, StopStringsThatSpellASpecialToken) {
  Up();
  const TokenId end = *TinyTokenizer().eos_id(), think = *TinyTokenizer().FindToken("</think>");
  v1::GenerateRequest request;
  request.set_text("x");
  request.mutable_stop()->add_strings(TinyTokenizer().eos_token());
  request.mutable_stop()->add_strings("</think>");
  const auto submitted = [&](auto call, const auto& message) {
    grpc::ClientContext context;
    auto reader = call(&context, message);
    const Submit submit = AcceptOne();
    context.TryCancel();
    reader->Finish();
    return submit.record->request.stop.stop_token_ids;
  };
  const auto generate = [&](auto* context, const auto& m) { return stub_->Generate(context, m); };
  EXPECT_THAT(submitted(generate, request), ::testing::Contains(end));
  request.mutable_output()->set_keep_special(true);
  EXPECT_THAT(submitted(generate, request), ::testing::IsEmpty());
  request.mutable_output()->set_keep_special(false);
  request.mutable_stop()->add_strings("end" + TinyTokenizer().eos_token());
  const absl::Status status = Generate(request);
  EXPECT_EQ(DetailOf(status)->reason, "STOP_NEVER_FOUND");
  EXPECT_EQ(DetailOf(status)->field, "stop.strings[2]");
  v1::ChatRequest chat;
  chat.add_messages()->set_role("user");
  chat.mutable_messages(0)->set_content("x");
  chat.mutable_stop()->add_strings("</think>");
  const auto ask = [&](auto* context, const auto& m) { return stub_->Chat(context, m); };
  EXPECT_THAT(submitted(ask, chat), ::testing::Contains(think));
}

TEST_F(ServiceTest, LimitsAreThoseOfAdmission) {
  v1::Limits limits;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->GetLimits(&context, {}, &limits).ok());
  ASSERT_EQ(limits.fields_size(), static_cast<int>(FieldLimits().size()));
  for (int i = 0; i < limits.fields_size(); ++i) {
    const FieldLimit& row = FieldLimits()[static_cast<size_t>(i)];
    EXPECT_EQ(limits.fields(i).field(), row.path);
    EXPECT_EQ(limits.fields(i).min(), row.min);
    EXPECT_GE(limits.fields(i).max(), limits.fields(i).min());
  }
}

TEST_F(ServiceTest, HealthAndStatusSayWhy) {
  const auto reason = [this] {
    auto admin = v1::Admin::NewStub(channel_);
    grpc::ClientContext context;
    v1::ClusterStatus status;
    EXPECT_TRUE(admin->GetStatus(&context, {}, &status).ok());
    return status.ready() ? std::string() : status.reason();
  };
  EXPECT_FALSE(Serving());
  EXPECT_THAT(reason(), HasSubstr("no scheduler"));
  v1::GenerateRequest request;
  request.set_text("x");
  EXPECT_EQ(DetailOf(Generate(request))->reason, "NO_SCHEDULER");
  UpWith("");
  EXPECT_THAT(reason(), HasSubstr("no worker"));
  UpWith("abc");
  EXPECT_FALSE(Serving());
  EXPECT_THAT(reason(), HasSubstr("another config.json"));
  EXPECT_EQ(DetailOf(Generate(request))->reason, "MODEL_MISMATCH");
  Up();
  EXPECT_TRUE(Serving());
  EXPECT_EQ(reason(), "");
  api_->Drain();
  EXPECT_FALSE(Serving());
  EXPECT_EQ(DetailOf(Generate(request))->reason, "DRAINING");
}

TEST_F(ServiceTest, ValidateSaysWhatStartedWould) {
  Up();
  v1::ValidateRequest request;
  request.mutable_chat()->add_messages()->set_role("user");
  v1::Started validated;
  const auto validate = [&] {
    grpc::ClientContext context;
    return FromGrpcStatus(stub_->Validate(&context, request, &validated));
  };
  EXPECT_TRUE(validate().ok());
  request.mutable_chat()->set_request_id(validated.request_id());
  grpc::ClientContext context;
  auto reader = stub_->Chat(&context, request.chat());
  Answer(AcceptOne(), Ids("Hi"));  // The only Submit.
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.started().SerializeAsString(), validated.SerializeAsString());
  while (reader->Read(&response)) continue;
  request.mutable_generate()->mutable_sampling()->set_temperature(3);
  EXPECT_EQ(DetailOf(validate())->field, "sampling.temperature");
  request.clear_request();
  EXPECT_EQ(DetailOf(validate())->reason, "EMPTY_PROMPT");
}

TEST_F(ServiceTest, ManyStreamsEachReadTheirOwn) {
  Up();
  constexpr int kStreams = 64;
  struct Call {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader;
  };
  std::vector<Call> calls(kStreams);
  for (int i = 0; i < kStreams; ++i) {
    v1::GenerateRequest request;
    request.set_request_id(std::to_string(i));
    request.mutable_token_ids()->add_ids(i);
    calls[i].reader = stub_->Generate(&calls[i].context, request);
  }
  for (int answered = 0; answered < kStreams;) {
    const std::vector<Submit> submits = link_.WaitForSubmits();
    ASSERT_FALSE(submits.empty());
    for (const Submit& submit : submits) {
      Accept(submit);
      Answer(submit, Ids("answer " + submit.key.request_id));
      ++answered;
    }
  }
  for (int i = 0; i < kStreams; ++i) {
    std::string text;
    v1::GenerateResponse response;
    while (calls[i].reader->Read(&response)) text += response.tokens().text();
    EXPECT_TRUE(calls[i].reader->Finish().ok());
    EXPECT_EQ(text, "answer " + std::to_string(i));
  }
}

}  // namespace
}  // namespace fathom::router
