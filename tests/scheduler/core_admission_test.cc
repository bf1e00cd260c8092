// The parts of admission, each for itself: promises of places, tokens per minute, forecasts, and
// the limits of all requests and of a tenant.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "common/reason.h"
#include "scheduler/core/admission.h"
#include "scheduler/core/forecast.h"
#include "tests/sim/model.h"

namespace fathom::scheduler {
namespace {

SessionKey KeyOf(uint64_t number) { return {"t", std::to_string(number)}; }

// ---- Promises

// A queue of `max` places that a server empties at a rate that varies, and clients that obey. Every
// client is admitted at its first return, or nearly so, whatever the others do.
struct ObeyingRun {
  int64_t refused = 0, returned = 0, admitted_at_first_return = 0, idle_ms = 0;
};
ObeyingRun Obey(uint64_t seed, int64_t max, double arrivals_per_ms, int32_t no_show_percent) {
  std::mt19937_64 rng(seed);
  RetryPromises line(100'000);
  ObeyingRun run;
  int64_t used = 0;
  uint64_t number = 0;
  std::multimap<TimeUs, SessionKey> returning;
  const auto submit = [&](const SessionKey& key, bool again, TimeUs now) {
    if (line.Admits(key, used, 1, max, now)) {
      line.Take(key);
      ++used;
      line.Note(used, 0, now);
      return true;
    }
    if (!again) ++run.refused;
    const double us = line.UsPerUnit() * 1.25;
    const auto each_us = static_cast<int64_t>(us);
    const int64_t ms = line.Refuse(key, 1, each_us, each_us, now);
    if (rng() % 100 >= static_cast<uint64_t>(no_show_percent)) {
      returning.emplace(now + ms * 1000 + static_cast<int64_t>(rng() % 5000), key);
    }
    return false;
  };
  double due = 0;
  for (TimeUs now = 1000; now < 240'000'000; now += 1000) {
    if (now < 60'000'000) due += arrivals_per_ms;  // More than the server can do for a minute.
    for (; due >= 1; due -= 1) submit(KeyOf(++number), false, now);
    while (!returning.empty() && returning.begin()->first <= now) {
      const SessionKey key = returning.begin()->second;
      returning.erase(returning.begin());
      ++run.returned;
      run.admitted_at_first_return += submit(key, true, now) ? 1 : 0;
    }
    // On the average one place in 10 ms, in bursts of up to 8.
    if (used > 0 && rng() % 45 == 0) {
      const int64_t freed = std::min<int64_t>(used, 1 + static_cast<int64_t>(rng() % 8));
      used -= freed;
      line.Note(used, freed, now);
    }
    if (used == 0 && !returning.empty() && now > 1'000'000 && now < 60'000'000) ++run.idle_ms;
  }
  EXPECT_TRUE(returning.empty());
  return run;
}

TEST(RetryPromises, WhoObeysIsAdmitted) {
  const uint64_t seed = sim::TestSeed(11);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  for (const int64_t max : {64, 250, 1000}) {
    for (const double load : {1.2, 1.8}) {
      for (const int32_t no_shows : {0, 50}) {
        const ObeyingRun run = Obey(seed, max, load / 10, no_shows);
        SCOPED_TRACE(fmt::format(
            "max {}, load {}, {} % do not return: {} refused, {} returned, {} "
            "admitted",
            max, load, no_shows, run.refused, run.returned, run.admitted_at_first_return));
        fmt::print("max {} load {} no-shows {} %: {} refused, {} of {} returns admitted\n", max,
                   load, no_shows, run.refused, run.admitted_at_first_return, run.returned);
        EXPECT_GT(run.refused, 100);
        EXPECT_GE(run.admitted_at_first_return * 100, run.returned * 95);
        EXPECT_LE(run.idle_ms, 600);  // Of a minute, between two bursts.
      }
    }
  }
}

TEST(RetryPromises, AnEarlyReturnIsToldTheRestOfItsDelay) {
  RetryPromises line(100'000);
  for (uint64_t i = 0; i < 20; ++i) {
    ASSERT_FALSE(line.Admits(KeyOf(i), 4, 1, 4, 1000));
    line.Refuse(KeyOf(i), 1, 100'000, 100'000, 1000);
  }
  const int64_t ms = line.Refuse(KeyOf(19), 1, 100'000, 100'000, 500'000);
  EXPECT_GE(ms, 1701);  // Of the 20th place, which is kept from 2.2 s after the begin.
  EXPECT_LE(ms, 1702);
  EXPECT_EQ(line.counts().broken, 0u);
}

// A quarter of the places is for anyone, so that nothing idles because
// of clients that do not come back.
TEST(RetryPromises, AbsentClientsLeaveAQuarterOfThePlaces) {
  RetryPromises line(1'000'000);
  for (uint64_t i = 0; i < 50; ++i) line.Refuse(KeyOf(i), 1, 1'000'000, 1'000'000, 0);
  EXPECT_FALSE(line.Admits(KeyOf(99), 5, 1, 20, 1000));
  EXPECT_TRUE(line.Admits(KeyOf(99), 4, 1, 20, 1000));
  EXPECT_TRUE(line.Admits(KeyOf(99), 0, 50, 20, 1000));  // Else it could never be admitted.
  EXPECT_FALSE(line.empty());
  EXPECT_TRUE(line.Admits(KeyOf(99), 19, 1, 20, 600'000'000));  // All promises have expired.
  EXPECT_TRUE(line.empty());
}

// ---- Tokens per minute

TEST(TokenBucket, NeverGivesMoreThanItsRateAndOneRequest) {
  const uint64_t seed = sim::TestSeed(12);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  std::mt19937_64 rng(seed);
  constexpr int64_t kRate = 6000, kLargest = 500;
  TokenBucket bucket;
  bucket.SetRate(kRate, 7);
  std::deque<std::pair<TimeUs, int64_t>> taken;
  int64_t in_minute = 0, all = 0;
  TimeUs now = 7;
  for (int i = 0; i < 200'000; ++i) {
    now += static_cast<TimeUs>(rng() % 20'000);
    const int64_t empty_us = bucket.EmptyForUs(now);
    if (rng() % 2 == 0 && empty_us > 0) {
      TokenBucket then = bucket;
      EXPECT_GT(then.EmptyForUs(now + empty_us - 2), 0);
      EXPECT_EQ(then.EmptyForUs(now + empty_us), 0);
      continue;
    }
    if (empty_us > 0) continue;
    const int64_t tokens = 1 + static_cast<int64_t>(rng() % kLargest);
    bucket.Take(tokens, now);
    taken.emplace_back(now, tokens);
    in_minute += tokens;
    all += tokens;
    while (taken.front().first <= now - 60'000'000) {
      in_minute -= taken.front().second;
      taken.pop_front();
    }
    ASSERT_LE(in_minute, 2 * kRate + kLargest);
  }
  const double minutes = static_cast<double>(now) / 6e7;
  EXPECT_LE(static_cast<double>(all), (minutes + 1) * kRate + kLargest);
  EXPECT_GE(static_cast<double>(all), minutes * kRate * 0.98);  // And nearly all of it.
  bucket.Take(-1'000'000'000, now);
  EXPECT_EQ(bucket.Tokens(now), kRate);  // Given back, never more than a minute's.
  bucket.SetRate(0, now);
  EXPECT_EQ(bucket.EmptyForUs(now), 0);
}

// ---- Forecasts

TEST(Forecast, KnowsNothingWithoutABacklog) {
  Forecast forecast;
  TimeUs now = 0;
  for (int i = 0; i < 100; ++i) {
    now += 200'000;
    forecast.Left();
    forecast.NoteWaiting(i % 3 == 0, now);  // Between the requests nobody waits.
  }
  EXPECT_EQ(forecast.LeastFirstTokenUs(1000, 1, now), 0);
}

TEST(Forecast, TakesTheFastestSecondAndTheShortestSteps) {
  Forecast forecast;
  TimeUs now = 0;
  forecast.NoteWaiting(true, now);
  for (int second = 0; second < 8; ++second) {
    const int left = second == 3 ? 20 : 10;
    for (int i = 0; i < left; ++i) {
      now += 1'000'000 / left;
      forecast.Left();
      forecast.NoteWaiting(true, now);
    }
    forecast.NoteStep(false, 20'000 + second, now);
    forecast.NoteStep(true, 50'000 + second, now);
  }
  EXPECT_NEAR(static_cast<double>(forecast.LeastWaitUs(100, now)), 5e6, 5e5);
  const int64_t wait_us = forecast.LeastWaitUs(100, now);
  EXPECT_NEAR(static_cast<double>(forecast.LeastFirstTokenUs(100, 1, now) - wait_us), 20'000, 2);
  EXPECT_NEAR(static_cast<double>(forecast.LeastFirstTokenUs(100, 5, now) - wait_us), 220'000, 9);
  forecast.Reset(now);  // A group came up.
  EXPECT_EQ(forecast.LeastFirstTokenUs(100, 5, now), 0);
}

// ---- Limits

Record RecordOf(const std::string& tenant, uint64_t number, size_t prompt, int32_t max_tokens) {
  Record record;
  record.key = {tenant, std::to_string(number)};
  record.prompt_ids.assign(prompt, 1);
  record.request.stop.max_tokens = max_tokens;
  return record;
}

TEST(Admission, EachLimitRefusesWithItsNameReasonAndDelay) {
  Admission admission(10, 1000);
  TenantTable table;
  table.tenants["few"] = {.queued_max = 2};
  table.tenants["short"] = {.queued_tokens_max = 50};
  table.tenants["slow"] = {.tokens_per_minute = 100};
  admission.SetTable(table, 0);
  uint64_t number = 0;
  const auto submit = [&](const std::string& tenant, size_t prompt, int32_t max_tokens = 5) {
    const Record record = RecordOf(tenant, ++number, prompt, max_tokens);
    const absl::Status status = admission.Check(record, false, 1000);
    if (!status.ok()) return status;
    admission.Accepted(record.key);
    admission.Queued(tenant, std::ssize(record.prompt_ids), 1000);
    admission.TakeTokens(tenant, static_cast<int64_t>(prompt) + max_tokens, 1000);
    return status;
  };
  const auto refused = [&](const absl::Status& status, Reason reason, std::string_view limit,
                           RefusedBy by) {
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_NE(Message(status).find(limit), std::string_view::npos) << Message(status);
    const ErrorDetail detail = DetailOf(status).value_or(ErrorDetail{});
    EXPECT_EQ(detail.reason, ReasonText(reason));
    EXPECT_GE(detail.retry_after_ms, 50);
    EXPECT_EQ(admission.refused()[static_cast<size_t>(by)], 1u);
  };
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(submit("few", 1).ok());
  refused(submit("few", 1), Reason::kTenantQueueFull, "queued_max is 2",
          RefusedBy::kTenantRequests);
  EXPECT_TRUE(submit("short", 70).ok());  // The first is taken whatever its size.
  refused(submit("short", 1), Reason::kTenantQueueFull, "queued_tokens_max is 50",
          RefusedBy::kTenantTokens);
  EXPECT_TRUE(submit("slow", 100, 100).ok());  // The bucket may get a debt.
  const absl::Status slow = submit("slow", 1);
  refused(slow, Reason::kTenantRateLimit, "tokens_per_minute is 100", RefusedBy::kTenantRate);
  EXPECT_NEAR(static_cast<double>(DetailOf(slow)->retry_after_ms), 64'000, 5'000);
  EXPECT_TRUE(submit("other", 800).ok());
  refused(submit("other", 100), Reason::kQueueFull, "--waiting-tokens-max is 1000",
          RefusedBy::kQueueTokens);
  EXPECT_TRUE(admission.CheckCounts(5, 2 + 70 + 100 + 800, 0).ok());
}

TEST(Admission, AQueueOfSoManyRequests) {
  Admission admission(10, 1000);
  for (uint64_t i = 0; i < 10; ++i) {
    ASSERT_TRUE(admission.Check(RecordOf("t", i, 1, 1), false, 5).ok());
    admission.Queued("t", 1, 5);
  }
  const absl::Status status = admission.Check(RecordOf("t", 11, 1, 1), false, 5);
  EXPECT_EQ(DetailOf(status)->reason, "QUEUE_FULL");
  EXPECT_NE(Message(status).find("the limit --waiting-requests-max is 10"), std::string_view::npos);
  EXPECT_EQ(admission.refused()[static_cast<size_t>(RefusedBy::kQueueRequests)], 1u);
}

TEST(Admission, OneTenantTakesOnlyPartOfTheQueueWhileOthersAreThere) {
  Admission admission(16, 1000);
  TenantTable table;
  table.tenants["few"] = {.queued_max = 3};
  admission.SetTable(table, 0);
  uint64_t number = 0;
  const auto submit = [&](const std::string& tenant, bool keep_some) {
    const absl::Status status = admission.Check(RecordOf(tenant, ++number, 1, 1), keep_some, 5);
    if (status.ok()) admission.Queued(tenant, 1, 5);
    return status;
  };
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(submit("few", true).ok());
  EXPECT_NE(Message(submit("few", true)).find("the limit queued_max is 3"), std::string_view::npos);
  int32_t accepted = 0;
  while (submit("t", true).ok()) ++accepted;
  EXPECT_EQ(accepted, 13);  // The queue is full with them.
  for (int i = 0; i < 3; ++i) admission.Unqueued("few", 1, 5);
  EXPECT_TRUE(submit("t", true).ok());
  const absl::Status status = submit("t", true);
  EXPECT_EQ(DetailOf(status)->reason, "QUEUE_FULL");
  EXPECT_NE(Message(status).find("14 requests of tenant 't' wait and this request has 1; the limit "
                                 "for one tenant of --waiting-requests-max is 14"),
            std::string_view::npos)
      << Message(status);
  EXPECT_TRUE(submit("u", true).ok());
}

TEST(Admission, WhatIsGivenBackCountsForNothing) {
  Admission admission(10, 1000);
  TenantTable table;
  table.defaults.tokens_per_minute = 100;
  admission.SetTable(table, 0);
  for (uint64_t i = 0; i < 1000; ++i) {  // Each asks for 1000 tokens and uses none.
    const Record record = RecordOf("t", i, 1, 999);
    ASSERT_TRUE(admission.Check(record, false, 5).ok()) << i;
    admission.TakeTokens("t", 1000, 5);
    admission.TakeTokens("t", -1000, 5);
  }
}

// The state is bounded by the tenants that have something.
TEST(Admission, IdleTenantsAreForgotten) {
  Admission admission(10, 1000);
  TimeUs now = 0;
  for (uint64_t i = 0; i < 100'000; ++i) {
    const std::string tenant = std::to_string(i);
    ASSERT_TRUE(admission.Check(RecordOf(tenant, i, 1, 1), false, ++now).ok());
    admission.Queued(tenant, 1, now);
    admission.Unqueued(tenant, 1, now);
  }
  EXPECT_LE(admission.tenants(), 200u);
}

}  // namespace
}  // namespace fathom::scheduler
