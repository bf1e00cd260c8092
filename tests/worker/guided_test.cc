// Guided sequences in the engine: their tokens are those of a sequence that is computed alone with
// the masks of its grammar, for any batch, and after a new epoch in the middle.
#include <gtest/gtest.h>

#include <optional>
#include <set>

#include "tests/worker/engine_world.h"
#include "text/guided/grammar_engine.h"

namespace fathom::worker {
namespace {

constexpr TokenId kEnd = kFakeVocab - 1;

std::vector<std::string> Tokens() {
  std::vector<std::string> tokens;
  for (int i = 0; i < kFakeVocab - 1; ++i) {
    tokens.emplace_back(i < 26 ? std::string(1, static_cast<char>('a' + i))
                               : std::string(2, static_cast<char>('a' + i - 26)));
  }
  tokens.emplace_back("");
  return tokens;
}

struct Guided {
  CompiledGrammar grammar;
  GrammarRef sent;
  Naive naive;
  int32_t slot = 0;
  std::optional<StepId> fed_by;

  std::vector<TokenId> Output() const {
    return {naive.ids.begin() + naive.prompt_tokens, naive.ids.end()};
  }
  // The next token that it has when it is computed alone.
  TokenId Expect() {
    GrammarMatcher matcher(grammar, {kEnd});
    for (const TokenId id : Output()) EXPECT_TRUE(matcher.Accept(id));
    naive.mask.resize(GrammarMaskWords(kFakeVocab));
    matcher.FillMask(naive.mask);
    return naive.Next();
  }
  bool ended() const { return naive.ids.back() == kEnd; }
};

class GuidedEngineTest : public testing::Test {
 protected:
  GuidedEngineTest()
      : engine_(GrammarEngine::Make(Tokens()).value()), world_(kLimits, 0, engine_.get()) {}

  Guided Make(int32_t slot, const std::string& regex, float temperature) {
    Guided guided;
    guided.slot = slot;
    guided.grammar = engine_->Compile({.kind = GrammarKind::kRegex, .text = regex}, "x").value();
    guided.sent = GrammarRef({"digest of " + regex, engine_->vocabulary_digest(),
                              engine_->Serialize(guided.grammar).value()});
    guided.naive.request = World::Greedy();
    guided.naive.request.sampling.temperature = temperature;
    guided.naive.request.stop.end_token_ids = {kEnd};
    guided.naive.seed = 77;
    guided.naive.prompt_tokens = 3;
    guided.naive.ids = {slot, 2, 3};
    return guided;
  }
  void Admit(StepPlan* plan, Guided* guided, bool send) {
    if (send) plan->grammars.push_back(guided->sent);
    world_.Seat1(plan, guided->slot, guided->naive.ids, guided->naive.request);
    fathom::Admit& admit = plan->admits.back();
    admit.seed = guided->naive.seed;
    admit.sequence = guided->naive.sequence;
    admit.prompt_tokens = guided->naive.prompt_tokens;
    admit.grammar_digest = guided->sent.digest();
    plan->chunks.push_back({{guided->slot}, static_cast<int32_t>(guided->naive.ids.size()), true});
  }
  // Executes the plan and compares the samples of `all`, one chunk each.
  void Run(const StepPlan& plan, const std::vector<Guided*>& all) {
    const auto result = world_.Execute(plan);
    ASSERT_TRUE(result.ok()) << ToString(result.status());
    ASSERT_EQ(result->rows.size(), all.size());
    for (size_t i = 0; i < all.size(); ++i) {
      const TokenId want = all[i]->Expect();
      ASSERT_EQ(result->rows[i].fault, RowFault::kNone);
      ASSERT_EQ(result->rows[i].ids, std::vector<TokenId>{want}) << "slot " << all[i]->slot;
      all[i]->naive.ids.push_back(want);
      all[i]->fed_by = plan.step;
    }
  }

  const std::unique_ptr<GrammarEngine> engine_;
  World world_;
};

TEST_F(GuidedEngineTest, TokensAreThoseOfTheGrammarInAnyBatch) {
  std::vector<Guided> all;
  const char* kRegexes[] = {"(ab|ba|c)+", "a+b+c+d+", "(x|yy|z)*q"};
  for (int32_t slot = 1; slot <= 6; ++slot) {
    all.push_back(Make(slot, kRegexes[slot % 3], slot % 2 == 0 ? 0.0f : 1.5f));
  }
  for (int epoch = 0; epoch < 2; ++epoch) {
    std::set<std::string> sent;
    std::vector<Guided*> running;
    for (int step = 0; step < 14; ++step) {
      StepPlan plan = world_.Plan();
      std::vector<Guided*> rows;
      for (Guided* each : running) {
        if (each->ended()) continue;
        plan.chunks.push_back({{each->slot}, DecodeRow{*each->fed_by}, true});
        rows.push_back(each);
      }
      if (step < 6 && !all[static_cast<size_t>(step)].ended()) {
        Guided* next = &all[static_cast<size_t>(step)];
        Admit(&plan, next, sent.insert(next->sent.digest()).second);
        running.push_back(next);
        rows.push_back(next);
      }
      Run(plan, rows);
      if (HasFatalFailure()) return;
    }
    world_.Restart();  // The next epoch replays the tokens so far.
  }
  int ended = 0;
  for (const Guided& each : all) ended += each.ended() ? 1 : 0;
  EXPECT_GT(ended, 0);
}

TEST_F(GuidedEngineTest, SlotsAreUsedAgain) {
  for (int round = 0; round < 5; ++round) {
    Guided guided = Make(1, round % 2 == 0 ? "ab*" : "q(rs)*", 0);
    StepPlan plan = world_.Plan();
    if (round > 0) plan.releases.push_back({1});
    Admit(&plan, &guided, round < 2);
    Run(plan, {&guided});
    for (int step = 0; step < 3 && !guided.ended(); ++step) {
      StepPlan next = world_.Plan();
      next.chunks.push_back({{1}, DecodeRow{*guided.fed_by}, true});
      Run(next, {&guided});
    }
  }
}

// What a wrong plan or record may say: a grammar that was never sent ends the epoch; bytes that are
// no grammar, and tokens against the grammar, end the sequence with a fault that says so.
TEST_F(GuidedEngineTest, WrongGrammarsAndTokens) {
  {
    Guided guided = Make(1, "ab*", 0);
    StepPlan plan = world_.Plan();
    Admit(&plan, &guided, false);
    EXPECT_FALSE(world_.Execute(plan).ok());
    world_.Restart();
  }
  for (const bool bad_bytes : {true, false}) {
    Guided guided = Make(1, "ab*", 0);
    if (bad_bytes) {
      guided.sent = GrammarRef({"bad", "", "{}"});
    } else {
      guided.naive.ids.push_back(25);  // A generated 'z'.
    }
    StepPlan plan = world_.Plan();
    Admit(&plan, &guided, true);
    const auto result = world_.Execute(plan);
    ASSERT_TRUE(result.ok()) << ToString(result.status());
    EXPECT_EQ(result->rows[0].fault, RowFault::kTokenOutOfRange);
    EXPECT_NE(result->rows[0].fault_detail.find("grammar"), std::string::npos);
    world_.Restart();
  }
}

}  // namespace
}  // namespace fathom::worker
