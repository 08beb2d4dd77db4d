"""What we ask of a running Dagster, over its GraphQL: is our code location well, load it anew, record an activation."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from sentinel_core.errors import ServiceError

LOCATION = "sentinel"
_FINISHED = ("SUCCESS", "FAILURE", "CANCELED")

_LOCATIONS = """{ workspaceOrError { __typename ... on PythonError { message } ... on Workspace {
  locationEntries { name loadStatus locationOrLoadError { __typename ... on PythonError { message } } } } } }"""
_RELOAD = """mutation($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) { __typename
  ... on WorkspaceLocationEntry { locationOrLoadError { __typename ... on PythonError { message } } }
  ... on ReloadNotSupported { message } ... on RepositoryLocationNotFound { message }
  ... on UnauthorizedError { message } ... on PythonError { message } } }"""
_LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } }
  ... on RunConfigValidationInvalid { errors { message } }
  ... on PipelineNotFoundError { message } ... on PythonError { message } } }"""
_STATUS = """query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"""


class DagsterApi:
    """The webserver of one Dagster, a context manager; ServiceError where it cannot be reached or refuses."""

    def __init__(self, url: str, *, timeout: float = 10.0, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url
        self._http = httpx.Client(timeout=timeout, transport=transport, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._http.close()

    def location_problem(self) -> str | None:
        """Why our code location does not work; None while it does, or is still loading."""
        workspace = self._ask(_LOCATIONS)["workspaceOrError"]
        entries = {entry["name"]: entry for entry in workspace.get("locationEntries", [])}
        if LOCATION not in entries:
            return str(workspace.get("message", "Dagster does not know it"))
        return _load_error(entries[LOCATION])

    def reload(self) -> None:
        """Load our code location anew, in a new process if its old one is gone."""
        answer = self._ask(_RELOAD, {"name": LOCATION}, timeout=120.0)["reloadRepositoryLocation"]
        problem = answer.get("message") or _load_error(answer)
        if problem:
            raise ServiceError(f"Dagster could not load {LOCATION} anew: {first_line(problem)}")

    def record_activation(self, slug: str, reason: str, *, seconds: float = 60.0) -> None:
        """Materialize what serves a watch now in `active_models`, and wait until it stands there."""
        params = {
            "selector": {
                "repositoryLocationName": LOCATION,
                "repositoryName": "__repository__",
                "jobName": "rollback",
            },
            "runConfigData": {"ops": {"active_models": {"config": {"action": "confirm", "reason": reason}}}},
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": slug}]},
        }
        answer = self._ask(_LAUNCH, {"params": params}, timeout=30.0)["launchRun"]
        if "run" not in answer:
            problems = [error["message"] for error in answer.get("errors", [])] or [answer.get("message", "it refused")]
            raise ServiceError(f"Dagster did not record the change: {first_line(problems[0])}")
        run_id, deadline = answer["run"]["runId"], time.monotonic() + seconds
        while time.monotonic() < deadline:
            status = self._ask(_STATUS, {"id": run_id})["runOrError"].get("status")
            if status in _FINISHED:
                if status != "SUCCESS":
                    raise ServiceError(f"Dagster's record of the change failed; see {self.url}/runs/{run_id}")
                return
            time.sleep(0.5)
        raise ServiceError(f"Dagster has not recorded the change yet; see {self.url}/runs/{run_id}")

    def _ask(self, query: str, variables: Mapping[str, Any] | None = None, timeout: float | None = None) -> Any:
        try:
            response = self._http.post(
                f"{self.url}/graphql",
                json={"query": query, "variables": variables or {}},
                timeout=timeout or self._http.timeout,
            )
            answer = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise ServiceError(f"Dagster at {self.url} does not answer ({error or type(error).__name__})") from None
        if not isinstance(answer, dict) or not answer.get("data"):
            raise ServiceError(f"Dagster at {self.url} refuses: {str(answer)[:300]}")
        return answer["data"]


def _load_error(entry: Mapping[str, Any]) -> str | None:
    found = entry.get("locationOrLoadError") or {}
    return str(found.get("message")) if found.get("__typename") == "PythonError" else None


def first_line(text: str) -> str:
    """What a long error begins with."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:300] if lines else "without a reason"
