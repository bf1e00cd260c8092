#include "router/frontend/http/cluster_json.h"

#include "common/utf8.h"

namespace fathom::router {
namespace {

void WriteText(std::string_view text, JsonWriter* json) { json->String(ToUtf8(text)); }

void WriteRank(const RankReport& rank, JsonWriter* json) {
  json->BeginObject().Key("group").Int(rank.group).Key("rank").Int(rank.rank).Key("host");
  WriteText(rank.host, json);
  json->Key("phase").String(NameOf(rank.phase)).Key("still_ms").Int(rank.still_us / 1000);
  json->Key("doing");
  WriteText(DescribeWork(rank), json);
  json->Key("card");
  WriteText(rank.card, json);
  json->EndObject();
}

// Durations in microseconds; those that are 0 are left out.
void WriteParts(const RequestReport& report, JsonWriter* json) {
  json->BeginObject();
  const auto part = [json](const char* name, int64_t us) {
    if (us > 0) json->Key(name).Int(us);
  };
  part("transport", report.TransportUs());
  if (report.timings) {
    part("earlier", report.timings->earlier_us);
    part("queue", report.timings->queue_us);
    part("prefill", report.timings->prefill_us);
    part("decode", report.timings->decode_us);
    part("suspended", report.timings->suspended_us);
    part("replay", report.timings->replay_us);
  }
  json->EndObject();
}

void WriteStays(const RequestTimings& timings, JsonWriter* json) {
  json->BeginArray();
  for (const Stay& stay : timings.stays) {
    json->BeginObject().Key("group").Int(stay.group.value).Key("at_us").Int(stay.at_us);
    json->Key("us").Int(stay.us).Key("end").String(StayEndName(stay.end)).EndObject();
  }
  json->EndArray();
}

void WriteReport(const RequestReport& report, JsonWriter* json) {
  json->BeginObject().Key("request_id");
  WriteText(report.key.request_id, json);
  json->Key("model");
  WriteText(report.model, json);
  json->Key("outcome").String(report.outcome).Key("reason").String(report.reason).Key("message");
  WriteText(report.message, json);
  json->Key("prompt_tokens").Int(report.usage.prompt_tokens);
  json->Key("completion_tokens").Int(report.usage.completion_tokens);
  json->Key("cached_tokens").Int(report.usage.cached_tokens);
  json->Key("drafted_tokens").Int(report.usage.drafted_tokens);
  json->Key("accepted_draft_tokens").Int(report.usage.accepted_draft_tokens);
  json->Key("max_tokens").Int(report.max_tokens).Key("sequences").Int(report.sequences);
  json->Key("whole_us").Int(report.whole_us).Key("first_token_us").Int(report.first_token_us);
  json->Key("ended_ago_us").Int(report.ended_ago_us).Key("parts");
  WriteParts(report, json);
  if (report.timings) {
    json->Key("stays");
    WriteStays(*report.timings, json);
  }
  json->EndObject();
}

}  // namespace

void WriteStatus(const StatusAnswer& answer, JsonWriter* json) {
  const Sessions::View& view = answer.view;
  const ClusterStats& stats = view.stats;
  json->BeginObject().Key("ready").Bool(answer.ready.ok()).Key("reason");
  WriteText(answer.ready.ok() ? std::string_view() : Message(answer.ready), json);
  json->Key("model");
  WriteText(answer.model, json);
  json->Key("build").String(answer.build).Key("sessions").Int(static_cast<int64_t>(view.open));
  json->Key("requests_running").Int(stats.requests_running);
  json->Key("requests_waiting").Int(stats.requests_waiting);
  json->Key("blocks_total").Int(stats.blocks_total).Key("blocks_used").Int(stats.blocks_used);
  json->Key("step_tokens_total").Int(static_cast<int64_t>(stats.step_tokens.sum));
  json->Key("last_loss");
  WriteText(stats.last_loss, json);
  json->Key("waiting");
  WriteText(stats.waiting, json);
  json->Key("ranks").BeginArray();
  for (const RankReport& rank : stats.ranks) WriteRank(rank, json);
  json->EndArray();
  if (view.facts) {
    json->Key("term").Int(static_cast<int64_t>(view.term.value));
    json->Key("groups").Int(view.facts->groups);
    json->Key("fingerprint");
    WriteText(view.facts->fingerprint, json);
    json->Key("context_tokens").Int(view.facts->context_tokens);
  }
  json->EndObject();
}

void WriteRequests(const std::vector<RequestReport>& reports, JsonWriter* json) {
  json->BeginObject().Key("requests").BeginArray();
  for (const RequestReport& report : reports) WriteReport(report, json);
  json->EndArray().EndObject();
}

}  // namespace fathom::router
