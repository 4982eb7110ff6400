# The server alone: PostgreSQL and Dragonfly run beside it, see compose.yaml.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY realtime realtime
COPY sql sql
COPY web web
RUN pip install --no-cache-dir uv \
    && uv build --wheel --out-dir /dist \
    && uv venv /app \
    && uv pip install --no-cache --python /app/bin/python /dist/*.whl

FROM python:3.13-slim
COPY --from=build /app /app
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1 REALTIME_HOST=0.0.0.0
RUN useradd --system realtime
USER realtime
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-m", "realtime.healthcheck"]
CMD ["realtime", "serve"]
