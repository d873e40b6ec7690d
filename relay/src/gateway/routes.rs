//! The routes: which one a path belongs to, who may use it, what has passed on it. A table is never changed, but
//! replaced; a route that stays the same is the same object in the next one.

use std::{net::IpAddr, sync::Arc};

use serde_json::{Value, json};

use super::{
    control::Registry,
    counters::Counters,
    path::RequestPath,
    rules::Rules,
    settings::{Origins, RouteSettings, Sort},
    tap::Tap,
    upstream::Upstreams,
};
use crate::{channel::hub::Hub, tls::Connector};

/// A route in use.
#[derive(Debug)]
pub struct Route {
    /// What was said of it.
    pub settings: RouteSettings,
    /// Where it leads to.
    pub upstreams: Upstreams,
    /// What has passed on it; those of a changed route go on.
    pub counters: Arc<Counters>,
    /// Its open connections.
    pub open: Registry,
    /// What is done with its messages.
    pub rules: Rules,
    /// Where they are mirrored to.
    pub tap: Option<Tap>,
    /// Speaks TLS to its upstreams.
    pub tls: Option<Connector>,
}

/// All routes, the longest prefix first.
#[derive(Debug, Default)]
pub struct Table {
    routes: Vec<Arc<Route>>,
}

/// Why a request may not use a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Its network may not.
    #[error("connections from {0} are not allowed here")]
    Network(IpAddr),
    /// The path is nobody's.
    #[error("this path is not allowed")]
    Path,
    /// The page may not.
    #[error("pages from {0} may not connect here; the operator can allow them with `origins` of the route")]
    Origin(String),
}

impl Route {
    /// A route as it was said; of the one at the same path before it goes on what is counted.
    pub fn new(settings: RouteSettings, before: Option<&Self>, hub: &Arc<Hub>) -> Self {
        let tap_before = before.and_then(|before| before.tap.as_ref());
        let tls = settings.upstreams.iter().any(super::settings::Address::is_tls);
        Self {
            upstreams: Upstreams::new(
                &settings.upstreams,
                settings.balance,
                before.map(|before| &before.upstreams),
            ),
            counters: before.map(|before| Arc::clone(&before.counters)).unwrap_or_default(),
            open: Registry::default(),
            rules: Rules::new(&settings.rules, settings.max_message, before.map(|before| &before.rules)),
            tap: settings.tap.as_ref().map(|tap| Tap::new(tap, hub, tap_before)),
            tls: tls.then(|| Connector::new(settings.ca.as_ref())),
            settings,
        }
    }

    /// What its upstreams speak.
    pub fn sort(&self) -> Sort {
        self.settings.upstreams.first().map_or(Sort::WebSocket, |address| address.sort)
    }

    /// Whether somebody may use it. `origin` is that of the page if it is one, with whether it may subscribe.
    ///
    /// # Errors
    /// Why not.
    pub fn admits(
        &self,
        peer: IpAddr,
        path: &RequestPath<'_>,
        origin: Option<(&str, bool)>,
    ) -> Result<(), Denied> {
        let settings = &self.settings;
        let peer = peer.to_canonical();
        let allowed = settings.allow.as_ref().is_none_or(|nets| nets.iter().any(|net| net.contains(&peer)));
        if !allowed || settings.deny.iter().any(|net| net.contains(&peer)) {
            return Err(Denied::Network(peer));
        }
        if settings.deny_paths.iter().any(|denied| denied.contains(path)) {
            return Err(Denied::Path);
        }
        let Some((origin, may_subscribe)) = origin else { return Ok(()) };
        let admitted = match (&settings.origins, self.sort()) {
            (Origins::Any, _) | (Origins::Unsaid, Sort::WebSocket) => true,
            (Origins::Unsaid, Sort::Bytes) => may_subscribe,
            (Origins::These(origins), _) => origins.iter().any(|known| known.eq_ignore_ascii_case(origin)),
        };
        if admitted { Ok(()) } else { Err(Denied::Origin(origin.into())) }
    }

    /// As JSON; `removed` if new connections do not come to it any more.
    pub fn report(&self, removed: bool) -> Value {
        let mut report = json!({
            "path": self.settings.path.to_string(),
            "removed": removed,
            "upstreams": self.upstreams.report(),
            "rules": self.rules.report(),
            "tap": self.tap.as_ref().map(Tap::report),
        });
        if let (Some(report), Value::Object(counted)) = (report.as_object_mut(), self.counters.report()) {
            report.extend(counted);
        }
        report
    }
}

impl Table {
    /// The routes as they were said. Those that are the same in `before` stay the same; one that comes back goes on with
    /// what is counted of the last at its path of those that were `removed`.
    pub fn new(routes: Vec<RouteSettings>, before: &Self, removed: &[Arc<Route>], hub: &Arc<Hub>) -> Self {
        let route = |settings: RouteSettings| match before.at(&settings.path) {
            Some(route) if route.settings == settings => Arc::clone(route),
            changed => {
                // It may have been told that all its connections end, so it does not come back itself.
                let same_path = |route: &&Arc<Route>| route.settings.path == settings.path;
                let before = changed.or_else(|| removed.iter().rev().find(same_path));
                Arc::new(Route::new(settings, before.map(Arc::as_ref), hub))
            }
        };
        let mut routes: Vec<_> = routes.into_iter().map(route).collect();
        routes.sort_by_key(|route| std::cmp::Reverse(route.settings.path.len()));
        Self { routes }
    }

    /// The route of a path: the longest prefix.
    pub fn find(&self, path: &RequestPath<'_>) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| route.settings.path.contains(path))
    }

    /// All of them.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// Those that are not in `after`.
    pub fn gone<'a>(&'a self, after: &'a Self) -> impl Iterator<Item = &'a Arc<Route>> {
        self.routes.iter().filter(|route| !after.routes.iter().any(|kept| Arc::ptr_eq(kept, route)))
    }

    /// The route of exactly this prefix.
    pub fn at(&self, path: &super::path::Prefix) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| route.settings.path == *path)
    }
}
