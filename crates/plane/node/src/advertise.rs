//! Where the others reach this server: as it is told, or the address that it listens on, or, when that is every address, the one from
//! which it would reach them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The address of this machine from which it would reach another. Nothing is sent.
fn route(to: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

/// Where this server is, and why that was chosen.
pub(crate) fn choose(
    told: Option<&str>,
    listens: SocketAddr,
    peers: &[SocketAddr],
) -> Result<(String, String), String> {
    if let Some(told) = told {
        let address = match told.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, listens.port()).to_string(),
            Err(_) => told.to_owned(),
        };
        let ip = address.parse::<SocketAddr>().map(|a| a.ip());
        if ip.is_ok_and(|ip| ip.is_unspecified()) {
            return Err(format!(
                "--advertise: {told} is every address, and nobody can be reached there; say one of this machine's"
            ));
        }
        return Ok((address, "as --advertise says".to_owned()));
    }
    if !listens.ip().is_unspecified() {
        return Ok((listens.to_string(), "it listens there".to_owned()));
    }
    // Addresses kept for documents (RFC 5737, RFC 3849): the way out of this machine leads there as to everywhere.
    let out = [
        SocketAddr::from(([192, 0, 2, 1], 9)),
        SocketAddr::new(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(), 9),
    ];
    let fits = |to: &&SocketAddr| listens.is_ipv6() || to.is_ipv4();
    let towards = peers
        .iter()
        .filter(fits)
        .find_map(|to| Some((route(*to)?, *to)));
    if let Some((ip, to)) = towards {
        let address = SocketAddr::new(ip, listens.port()).to_string();
        return Ok((address, format!("from there it reaches {to}")));
    }
    match out.iter().filter(fits).find_map(|to| route(*to)) {
        Some(ip) => Ok((
            SocketAddr::new(ip, listens.port()).to_string(),
            "its way out of this machine begins there".to_owned(),
        )),
        None => {
            let loopback: IpAddr = if listens.is_ipv4() {
                Ipv4Addr::LOCALHOST.into()
            } else {
                Ipv6Addr::LOCALHOST.into()
            };
            let address = SocketAddr::new(loopback, listens.port()).to_string();
            Ok((address, "this machine has no other address".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn chosen(told: Option<&str>, listens: &str, peers: &[SocketAddr]) -> String {
        choose(told, at(listens), peers).unwrap().0
    }

    #[test]
    fn what_is_told_counts_first_then_where_it_listens_then_the_way_to_the_others() {
        assert_eq!(
            chosen(Some("10.1.2.3"), "0.0.0.0:4200", &[]),
            "10.1.2.3:4200"
        );
        assert_eq!(chosen(Some("fd00::1"), "[::]:4200", &[]), "[fd00::1]:4200");
        assert_eq!(chosen(Some("n1.lan:99"), "0.0.0.0:4200", &[]), "n1.lan:99");
        assert_eq!(
            chosen(Some("10.1.2.3:7"), "0.0.0.0:4200", &[]),
            "10.1.2.3:7"
        );
        assert_eq!(chosen(None, "127.0.0.1:4200", &[]), "127.0.0.1:4200");
        assert_eq!(chosen(None, "[::1]:4200", &[]), "[::1]:4200");
        let peers = [at("127.0.0.1:5000")];
        assert_eq!(chosen(None, "0.0.0.0:4200", &peers), "127.0.0.1:4200");
        assert_eq!(chosen(None, "[::]:4200", &peers), "127.0.0.1:4200");
        for every in ["0.0.0.0", "::", "0.0.0.0:4200", "[::]:4200"] {
            assert!(choose(Some(every), at("0.0.0.0:4200"), &[]).is_err());
        }
        let (address, why) = choose(None, at("0.0.0.0:4200"), &[]).unwrap();
        assert!(
            !address.starts_with("0.0.0.0") && address.ends_with(":4200"),
            "{address} {why}"
        );
    }
}
