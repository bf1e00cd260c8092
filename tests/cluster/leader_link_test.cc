// When a scheduler address is dialled, counts as the leader, and counts as dead; and which terms
// are believed.
#include "cluster/leader_link.h"

#include <gtest/gtest.h>

#include <string>

#include "cluster/terms.h"

namespace fathom {
namespace {

TEST(KnownTerm, TheHighestCredibleTermIsObeyed) {
  KnownTerm known;
  EXPECT_EQ(known.Hear(TermId{5}), TermVerdict::kObeyed);
  EXPECT_EQ(known.Hear(TermId{5}), TermVerdict::kObeyed);
  EXPECT_EQ(known.Hear(TermId{4}), TermVerdict::kStale);
  EXPECT_EQ(known.Hear(TermId{5 + kTermLeadMax + 1}), TermVerdict::kNotCredible);
  EXPECT_EQ(known.term(), TermId{5});
  EXPECT_EQ(known.Hear(TermId{5 + kTermLeadMax}), TermVerdict::kObeyed);
  EXPECT_EQ(known.term(), TermId{5 + kTermLeadMax});
}

TEST(LeaderLink, WaitsDoubleToTheLongestAndBeginAgainAfterAHello) {
  constexpr LeaderLinkOptions kOptions{.redial_us_min = 100, .redial_us_max = 400};
  LeaderLink link(kOptions, 1);
  EXPECT_EQ(link.next_dial_us(), 0);
  EXPECT_FALSE(link.failing());
  TimeUs now = 1000;
  for (const int64_t longest : {100, 200, 400, 400}) {
    link.Dialled(now);
    EXPECT_TRUE(link.open());
    link.Ended(now);
    EXPECT_FALSE(link.open());
    EXPECT_TRUE(link.failing());
    EXPECT_LE(link.next_dial_us(), now + longest);
    EXPECT_GE(link.next_dial_us(), now + longest * 3 / 4);
    now += 1000;
  }
  link.Dialled(now);
  link.HeardHello(/*leads=*/false, now);
  EXPECT_FALSE(link.failing());
  link.Ended(now);
  EXPECT_LE(link.next_dial_us(), now + 100);
}

TEST(LeaderLink, ProcessesDoNotDialInStep) {
  LeaderLink a({}, 1), b({}, 2);
  int differ = 0;
  for (int i = 0; i < 10; ++i) {
    a.Ended(0);
    b.Ended(0);
    differ += a.next_dial_us() != b.next_dial_us() ? 1 : 0;
  }
  EXPECT_GT(differ, 5);
}

TEST(LeaderLink, SilenceEndsAStreamThatBeatOrWasNeverAnswered) {
  constexpr LeaderLinkOptions kOptions{.silence_us = 200, .hello_us = 500};
  LeaderLink link(kOptions);
  EXPECT_FALSE(link.Silent(1'000'000)) << "no stream is open";
  link.Dialled(1000);
  EXPECT_FALSE(link.Silent(1500));
  EXPECT_TRUE(link.Silent(1501));
  link.HeardHello(/*leads=*/true, 1400);
  EXPECT_FALSE(link.Silent(1'000'000)) << "it has not beaten yet";
  link.Heard(/*beat=*/true, 2000);
  EXPECT_FALSE(link.Silent(2200));
  EXPECT_TRUE(link.Silent(2201));
  link.Excuse(50);
  EXPECT_FALSE(link.Silent(2250)) << "this process slept";
  EXPECT_TRUE(link.Silent(2251));
  link.Heard(/*beat=*/false, 3000);
  EXPECT_FALSE(link.Silent(3200));
  link.Ended(3300);
  link.Dialled(3300);
  link.HeardHello(/*leads=*/false, 3300);
  EXPECT_FALSE(link.Silent(1'000'000)) << "the next stream begins anew";
}

TEST(LeaderLink, ALeaderIsHeardUntilItResignsOrFallsSilent) {
  LeaderLink link;
  link.Dialled(0);
  link.HeardHello(/*leads=*/true, 10);
  EXPECT_TRUE(link.leads());
  EXPECT_TRUE(link.HearsLeader(9 + kLeaderDoubtUs));
  EXPECT_FALSE(link.HearsLeader(10 + kLeaderDoubtUs));
  link.Heard(/*beat=*/true, 20);
  EXPECT_TRUE(link.HearsLeader(10 + kLeaderDoubtUs));
  link.StepDown();
  EXPECT_FALSE(link.leads());
  EXPECT_FALSE(link.HearsLeader(21));
  link.HeardHello(/*leads=*/true, 30);
  link.Ended(40);
  EXPECT_FALSE(link.leads());
}

TEST(LeaderLink, OnlyASchedulerOfTheSameProtocolIsObeyed) {
  Hello hello;
  hello.role = Role::kWorker;
  EXPECT_NE(Message(CheckSchedulerHello(hello)).find("role 3"), std::string_view::npos);
  hello.scheduler = SchedulerFacts{};
  EXPECT_TRUE(CheckSchedulerHello(hello).ok());
  hello.protocol_min = hello.protocol_max = kProtocolMax + 1;
  EXPECT_NE(Message(CheckSchedulerHello(hello)).find("protocols"), std::string_view::npos);
}

}  // namespace
}  // namespace fathom
